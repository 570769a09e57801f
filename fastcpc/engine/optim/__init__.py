"""Optimisers, their parameter groups and state, the learning rate over a run, and the average of weights."""
