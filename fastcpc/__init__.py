"""fastcpc: train image classifiers on noisy labels with CPC-DivideMix, and list the labels that are wrong."""

__version__ = "0.1.0"
