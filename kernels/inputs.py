"""Turns arguments of the public functions into plain arrays and numbers.

Lists, pandas columns and everything else that NumPy can convert become NumPy arrays. NumPy, torch and CuPy arrays keep
their kind. Errors are ValueErrors that name the argument.
"""

import operator
import warnings
from numbers import Number
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array: TypeAlias = Any  # numpy.ndarray, torch.Tensor or cupy.ndarray; as an argument also what NumPy converts


def library(value: Any) -> str:
    """Whose array it is, "numpy", "torch" or "cupy"; empty for any other kind."""
    if isinstance(value, torch.Tensor):
        return "torch"
    if type(value).__module__.split(".")[0] == "cupy" and hasattr(value, "dtype"):  # known without importing it
        return "cupy"
    return "numpy" if isinstance(value, np.ndarray) else ""


def kind(value: Any) -> str:
    """The type's name and, for a tensor, where it is: for messages."""
    place = f" on {value.device}" if isinstance(value, torch.Tensor) else ""
    return f"{type(value).__module__}.{type(value).__qualname__}{place}"


def as_integer(name: str, value: Any) -> int:
    """An integer of Python, NumPy or a 0-d tensor, 1 or more; ValueError for anything else."""
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"{name}: expected an integer, 1 or more, got {value!r}")
    return number


def as_number(name: str, value: Any) -> float:
    """A finite number, 0 or more, as Python's float; ValueError for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not 0.0 <= number < float("inf"):
        raise ValueError(f"{name}: expected a finite number, 0 or more, got {value!r}")
    return number


def as_array(name: str, value: Any) -> Array:
    """NumPy, torch and CuPy arrays as they are; lists, Series and other sequences as NumPy arrays.

    A categorical of pandas becomes its codes. ValueError: masked values, missing values (NA, None, the code -1), text.
    """
    if library(value) == "numpy":
        return _native(name, value)
    if library(value):
        return value
    codes = _category_codes(value)
    if codes is not None:
        missing = np.flatnonzero(codes < 0)
        if len(missing):
            raise ValueError(
                f"{name}: {len(missing)} of {len(codes)} have no category (missing values), first at position "
                f"{missing[0]}; drop these rows, or give them a category"
            )
        return codes.astype(np.int64)
    if value is None or isinstance(value, (str, bytes, dict, set)) or not hasattr(value, "__len__"):
        raise ValueError(f"{name}: expected an array, a list or a Series, got {kind(value)}")
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name}: cannot be converted to an array ({error})") from None
    return _native(name, array)


def as_tensor(name: str, value: Any, device: torch.device) -> Tensor:
    """A torch tensor of what ``as_array`` accepts; tensors keep their device, others move to ``device``.

    Memory of NumPy is shared where possible, also read-only memory: the functions never write to it.
    """
    if isinstance(value, Tensor):
        return value
    array = as_array(name, value)
    if library(array) == "cupy":
        raise ValueError(f"{name}: expected a torch tensor, a NumPy array or a list, got {kind(value)}")
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name}: expected numbers, got {array.dtype} {array.shape}")
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:  # torch has few operations of these types
        array = array.astype(np.int64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)


def _category_codes(value: Any) -> npt.NDArray[Any] | None:
    """The codes of a categorical of pandas (Categorical, CategoricalIndex, Series); None for anything else."""
    if type(value).__module__.split(".")[0] != "pandas":
        return None
    categorical = value if hasattr(value, "codes") else getattr(value, "cat", None)
    return None if categorical is None else np.asarray(categorical.codes)


def _native(name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array in a dtype that torch knows too."""
    if np.ma.is_masked(array):
        raise ValueError(f"{name}: has masked values; drop these rows")
    array = np.asarray(array)
    if array.dtype == object:
        flat = array.ravel().tolist()
        bad = next((i for i, item in enumerate(flat) if not isinstance(item, Number)), None)
        if bad is not None:
            raise ValueError(f"{name}: expected numbers, got {flat[bad]!r} at position {bad}")
        array = np.array(flat).reshape(array.shape)
        array = array.astype(np.float64) if array.dtype == object else array
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        return array.astype(np.float64)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
