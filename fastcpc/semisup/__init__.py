"""The semi-supervised stage: guessed targets, MixUp and losses as pure tensor functions."""
