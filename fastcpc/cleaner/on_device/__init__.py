"""Work of cleaners that a GPU repeats without the host."""
