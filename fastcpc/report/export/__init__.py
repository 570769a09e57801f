"""Exported models: folder, model card, ONNX, predictions."""
