"""Typed settings of a run; knows nothing of the rest."""
