"""A run read back: what it holds of every label, as tables, figures and files for other programs."""
