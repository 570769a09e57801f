"""Checks of the arguments of ``audit``: each error is one ValueError that names the argument.

Rows of embeddings are not read here; ``EmbeddingRows`` checks their values while it computes their statistics.
"""

from typing import Any

import numpy as np
import torch

from fastcpc.arrays import Ints

MIN_DIMENSIONS = 1
MIN_SAMPLES = 4


def check_embeddings(embeddings: Any, *, min_samples: int = MIN_SAMPLES) -> Any:
    """The embeddings as a NumPy array (a memory map stays one) or a CPU tensor, (N, D) floating.

    Raises ValueError for objects, integers, complex numbers, and other shapes. N is at least min_samples.
    """
    if isinstance(embeddings, torch.Tensor):
        embeddings = embeddings.detach().cpu()
        kind, is_float = str(embeddings.dtype), embeddings.dtype.is_floating_point
    else:
        try:
            embeddings = embeddings if isinstance(embeddings, np.ndarray) else np.asarray(embeddings)
        except ValueError:
            raise ValueError("embeddings: rows of different lengths; give an array (N, D) of numbers") from None
        kind, is_float = str(embeddings.dtype), embeddings.dtype.kind == "f" and embeddings.itemsize <= 8
    if not is_float:
        raise ValueError(f"embeddings: unsupported dtype ({kind}); give float16, float32 or float64")
    shape = tuple(embeddings.shape)
    if len(shape) != 2 or shape[1] < MIN_DIMENSIONS:
        raise ValueError(f"embeddings: wrong shape {shape}; give (N, D), one row per sample")
    if shape[0] < min_samples:
        raise ValueError(f"embeddings: too few samples ({shape[0]}); give at least {min_samples}")
    return embeddings


def check_labels(name: str, labels: Any, num_samples: int, num_classes: int | None = None) -> Ints:
    """Labels as (N,) int64 in [0, num_classes), from an array, list, Series or tensor.

    name: the argument, for messages. num_classes: None: unknown, any label >= 0. Raises ValueError.
    """
    try:
        array = np.asarray(labels.detach().cpu() if isinstance(labels, torch.Tensor) else labels)
    except ValueError:
        raise ValueError(f"{name}: rows of different lengths; give one class number per sample") from None
    if array.ndim != 1 or len(array) != num_samples:
        raise ValueError(
            f"{name}: wrong shape {array.shape}; embeddings have {num_samples:,} rows, give ({num_samples},)"
        )
    if array.dtype.kind == "f" and np.isfinite(array).all() and (array == np.floor(array)).all():
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name}: not whole numbers ({array.dtype}); give class numbers 0 to K - 1")
    low, high = int(array.min()), int(array.max())
    if low < 0:
        raise ValueError(f"{name}: negative label ({low}, in row {int(array.argmin())}); give class numbers 0 to K - 1")
    if num_classes is not None and high >= num_classes:
        row = int(array.argmax())
        raise ValueError(f"{name}: label {high} in row {row}, but num_classes is {num_classes}; give 0 to K - 1")
    if num_classes is None and high >= num_samples:
        row = int(array.argmax())
        raise ValueError(
            f"{name}: label {high} in row {row} with {num_samples:,} samples; number the classes 0 to K - 1"
        )
    return array.astype(np.int64)


def check_num_classes(num_classes: Any, labels_N: Ints) -> int:
    """The number of classes, 2 or more. None: the largest label plus 1. Raises ValueError."""
    if num_classes is None:
        found = int(labels_N.max()) + 1
    elif isinstance(num_classes, (int, np.integer)) and not isinstance(num_classes, bool):
        found = int(num_classes)
    else:
        raise ValueError(f"num_classes: not a whole number ({num_classes!r}); give the number of classes K")
    if found < 2:
        raise ValueError(f"num_classes: only {found} class; an audit needs labels of at least 2 classes")
    if len(np.unique(labels_N)) < 2:
        raise ValueError("labels: all samples have one label; an audit needs labels of at least 2 classes")
    return found


def check_seed(seed: Any) -> int:
    """The seed, a whole number >= 0. Raises ValueError."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed: not a whole number of at least 0 ({seed!r}); give for example seed=0")
    return int(seed)
