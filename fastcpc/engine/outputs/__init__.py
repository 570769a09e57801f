"""Files of a run's folder besides checkpoints and logs."""
