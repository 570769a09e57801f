"""Losses, features and labels in; the probability that each label is clean out."""
