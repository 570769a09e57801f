"""Label audit from frozen embeddings: which given labels are wrong, in seconds and without training a network."""
