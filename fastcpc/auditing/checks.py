"""Checks of the arguments of ``audit``: each error is one ValueError that names the argument.

Rows of embeddings are not read here; ``EmbeddingRows`` checks their values while it computes their statistics.
"""

from collections.abc import Sequence
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
        except (ValueError, TypeError) as error:
            raise _no_array("embeddings", error, "give an array (N, D) of numbers") from None
        _check_masked("embeddings", embeddings)
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
    """Labels as (N,) int64 in [0, num_classes), from an array, list, Series, categorical or tensor.

    name: the argument, for messages. num_classes: None: unknown, any label >= 0. Labels of a categorical of pandas are
    its codes. Raises ValueError.
    """
    array = _label_array(name, labels)
    if array.ndim != 1 or len(array) != num_samples:
        raise ValueError(
            f"{name}: wrong shape {array.shape}; embeddings have {num_samples:,} rows, give ({num_samples},)"
        )
    array = _whole_numbers(name, array)
    low, high = int(array.min()), int(array.max())
    if low < 0:
        raise ValueError(f"{name}: negative label ({low}, in row {int(array.argmin())}); give class numbers 0 to K - 1")
    if num_classes is not None and high >= num_classes:
        row = int(array.argmax())
        hint = "labels look 1-based; subtract 1" if low > 0 and high == num_classes else "give 0 to K - 1"
        raise ValueError(f"{name}: label {high} in row {row}, but num_classes is {num_classes}; {hint}")
    if num_classes is None and high >= num_samples:
        row = int(array.argmax())
        raise ValueError(
            f"{name}: label {high} in row {row} with {num_samples:,} samples; number the classes 0 to K - 1"
        )
    if num_classes is None and low == 1 and high > 1 and len(np.unique(array)) == high:
        raise ValueError(
            f"{name}: labels are 1 to {high}, without a label 0: labels look 1-based; subtract 1, or give "
            f"num_classes={high + 1} if class 0 has no sample"
        )
    return array.astype(np.int64)


def category_count(labels: Any) -> int | None:
    """The number of categories of a categorical of pandas; None for other labels."""
    categorical = _categorical(labels)
    return None if categorical is None else len(categorical.categories)


def _categorical(labels: Any) -> Any:
    """What has codes and categories, of a Categorical, CategoricalIndex or Series of pandas; None for other labels."""
    if type(labels).__module__.split(".")[0] != "pandas":
        return None
    found = getattr(labels, "cat", labels)
    return found if hasattr(found, "codes") and hasattr(found, "categories") else None


def _label_array(name: str, labels: Any) -> np.ndarray:
    """Labels as a NumPy array of any kind."""
    categorical = _categorical(labels)
    if categorical is not None:
        categories = categorical.categories.tolist()
        numbers = [value for value in categories if isinstance(value, int) and not isinstance(value, bool)]
        if numbers and categories != list(range(len(categories))):
            raise ValueError(
                f"{name}: categories are numbers ({', '.join(map(str, categories[:3]))}) and not 0 to K - 1 in order, "
                "so that their codes are other numbers; give the codes (labels.cat.codes) or the numbers"
            )
        codes = np.asarray(categorical.codes)
        if (codes < 0).any():
            raise _no_label(name, np.flatnonzero(codes < 0).tolist(), "no category")
        return codes
    try:
        array = np.asarray(labels.detach().cpu() if isinstance(labels, torch.Tensor) else labels)
    except (ValueError, TypeError) as error:
        raise _no_array(name, error, "give one class number per sample") from None
    _check_masked(name, labels)
    return array


def _whole_numbers(name: str, array: np.ndarray) -> np.ndarray:
    """An array of labels as integers. ValueError: missing labels, fractions, texts."""
    if array.dtype.kind == "O":
        missing = [row for row, value in enumerate(array) if value is None or _is_missing(value)]
        if missing:
            raise _no_label(name, missing, repr(array[missing[0]]))
        if all(isinstance(value, (int, float, np.number)) for value in array):
            array = np.array(array.tolist())
    if array.dtype.kind == "f":
        missing = np.flatnonzero(np.isnan(array)).tolist()
        if missing:
            raise _no_label(name, missing, "NaN")
        if np.isfinite(array).all() and (array == np.floor(array)).all():
            array = array.astype(np.int64)
    if array.dtype.kind == "b":
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        hint = ", or pandas.Categorical(labels)" if array.dtype.kind in "OUST" else ""
        raise ValueError(f"{name}: not whole numbers ({array.dtype}); give class numbers 0 to K - 1{hint}")
    return array


def _is_missing(value: Any) -> bool:
    """Whether a value is NaN, or the NA or NaT of pandas."""
    if type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, (float, np.floating)) and bool(np.isnan(value))


def _no_label(name: str, rows: Sequence[int], value: str) -> ValueError:
    count = f"{len(rows):,} row{'s' if len(rows) > 1 else ''} in all"
    return ValueError(f"{name}: no label in row {rows[0]} ({value}, {count}); remove these rows or label them")


def _no_array(name: str, error: Exception, remedy: str) -> ValueError:
    if isinstance(error, TypeError):
        reason = " ".join(str(error).split())[:100]
        return ValueError(f"{name}: cannot become a NumPy array ({reason}); {remedy}")
    return ValueError(f"{name}: rows of different lengths; {remedy}")


def _check_masked(name: str, values: Any) -> None:
    if np.ma.is_masked(values):
        raise ValueError(f"{name}: has masked values; remove these rows, because an audit uses every row")


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
