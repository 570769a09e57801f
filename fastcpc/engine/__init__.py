"""The run: stages, epochs, evaluation, checkpoints, logs."""
