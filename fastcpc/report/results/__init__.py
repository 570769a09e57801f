"""Readers of a run's folder, and the tables made from it."""
