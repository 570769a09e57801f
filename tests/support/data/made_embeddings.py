"""Embeddings of well separated classes made for tests, with labels of which some are wrong; not a test itself."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from small_run import small_config

from fastcpc.config.schema import Config

CLASSES, DIM = 3, 24


def clusters(num_samples: int, seed: int = 1, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (N, DIM) float32 around one centre per class, and their classes (N,)."""
    draws = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(CLASSES, DIM)) * 1.5
    labels = draws.integers(0, CLASSES, num_samples)
    return (centres[labels] + spread * draws.normal(size=(num_samples, DIM))).astype(np.float32) + 3.0, labels


def write_clusters(folder: Path, num_samples: int = 300) -> None:
    """train.npy in float16 with train_labels.npy, test.npy with test_labels.npy."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, num, seed in (("train", num_samples, 1), ("test", 90, 2)):
        values, labels = clusters(num, seed)
        np.save(folder / f"{name}.npy", values.astype(np.float16))
        np.save(folder / f"{name}_labels.npy", labels)


def embedding_config(data: Path, run: Path, kind: str = "cpc_awr", **sections: Any) -> Config:
    """The small run on these embeddings with a linear head."""
    config = small_config(run, kind, model={"name": "linear"}, cpc={"embedding_dim": 8}, **sections)
    files = {"embeddings": "train.npy", "labels": "train_labels.npy", "test_embeddings": "test.npy"}
    files["test_labels"] = "test_labels.npy"
    paths = {key: str(data / name) for key, name in files.items()}
    return replace(config, data=replace(config.data, name="embeddings", subset=0, **paths))
