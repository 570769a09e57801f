"""Networks for embeddings, and the frozen models that compute them."""
