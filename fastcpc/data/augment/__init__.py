"""Weak and strong augmentation: crops, policies, operations, normalisation."""
