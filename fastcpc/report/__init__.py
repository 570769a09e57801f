"""A run read back: what it holds of every label, as tables, pictures and files for other programs."""
