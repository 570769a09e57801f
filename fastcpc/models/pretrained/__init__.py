"""Weights that networks start from, and the preprocessing that these weights expect."""
