"""Logs of a run: console, metrics.jsonl, TensorBoard, W&B, progress."""
