"""Arrays of NumPy, torch and CuPy alike: what kind they are, whether a fit can take them, and the way to NumPy."""

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import torch

from .gmm_numpy import MixtureParams
from .inputs import Array, kind, library

NUMPY_FLOATS = (torch.float16, torch.float32, torch.float64)
NAMED_POSITIONS = 5  # positions of bad values that a message names


def check_forms(values: Array, groups: Array | None, num_groups: int) -> None:
    """Kinds, shapes and dtypes of ``values`` and ``groups``, or ValueError; no element is looked at."""
    of = library(values)
    if not of:
        raise ValueError(f"values: expected a NumPy, torch or CuPy array, got {kind(values)}")
    if values.ndim != 1 or not _is_dtype(values, "float"):
        raise ValueError(f"values: expected floating (N,), got {_form(values)}")
    if groups is None:
        if num_groups != 1:
            raise ValueError(f"groups: expected an array for num_groups={num_groups}, got None")
        return
    check_groups_form(groups, of)
    if groups.shape != values.shape or home(groups) != home(values):
        raise ValueError(
            f"groups: expected integer {tuple(values.shape)} beside values, got {_form(groups)} on {home(groups)}"
        )


def check_groups_form(groups: Array, beside: str) -> None:
    """ValueError unless ``groups`` is an integer vector of the library ``beside``."""
    if not beside or library(groups) != beside:
        raise ValueError(f"groups: expected a {beside or 'NumPy, torch or CuPy'} array, got {kind(groups)}")
    if groups.ndim != 1 or not _is_dtype(groups, "int"):
        raise ValueError(f"groups: expected integer (N,), got {_form(groups)}")


def check_init_forms(init: Sequence[Array], num_groups: int, values: Array) -> None:
    """ValueError unless these are means, variances and weights of all groups, of the kind of ``values``."""
    if len(init) != 3:
        raise ValueError(f"init: expected (means, variances, weights), got {len(init)} items")
    for name, part in zip(("means", "variances", "weights"), init, strict=True):
        if home(part) != home(values):
            raise ValueError(f"init: expected {name} as a {home(values)} array beside values, got {kind(part)}")
        if tuple(part.shape) != (num_groups, 2):
            raise ValueError(f"init: expected {name} of shape {(num_groups, 2)}, got {tuple(part.shape)}")


def checked(
    values: Array, groups: Array | None, num_groups: int
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64] | None]:
    """Both as NumPy arrays; ValueError with the first positions where a value or an id is bad."""
    numbers = to_numpy(values)
    if not np.isfinite(numbers).all():
        bad = np.flatnonzero(~np.isfinite(numbers))
        raise ValueError(f"values: {len(bad)} of {len(numbers)} are NaN or infinite, first at {_positions(bad)}")
    if groups is None:
        return numbers, None
    ids = to_numpy(groups)
    check_ids(ids, num_groups)
    return numbers, ids.astype(np.int64, copy=False)


def check_ids(ids: npt.NDArray[Any], num_groups: int) -> None:
    """ValueError with the first positions of ids out of range."""
    if len(ids) and (ids.min() < 0 or ids.max() >= num_groups):
        bad = np.flatnonzero((ids < 0) | (ids >= num_groups))
        raise ValueError(
            f"groups: expected ids in [0, {num_groups - 1}] for num_groups={num_groups}, got {ids[bad[0]]}; "
            f"{len(bad)} out of range, first at {_positions(bad)}"
        )


def refuse(values: Array, groups: Array | None, num_groups: int) -> NoReturn:
    """The message for what the device found: the host looks for itself."""
    checked(values, groups, num_groups)
    raise AssertionError("the device found an error that the host does not find")


def check_start(start: MixtureParams, group_ids: npt.NDArray[Any]) -> None:
    """ValueError naming the first group whose start is no mixture."""
    sound = np.isfinite(np.concatenate(start, axis=1)).all(axis=1)
    sound &= (start.variances > 0).all(axis=1) & (start.weights > 0).all(axis=1)
    sound &= np.abs(start.weights.sum(axis=1) - 1.0) < 1e-6
    if not sound.all():
        bad = int(np.flatnonzero(~sound)[0])
        got = ", ".join(f"{name} {part[bad].tolist()}" for name, part in start._asdict().items())
        raise ValueError(
            f"init: expected finite means, variances above 0 and weights above 0 that sum to 1, "
            f"got {got} for group {group_ids[bad]}"
        )


def to_numpy(array: Array) -> npt.NDArray[Any]:
    """The array in main memory, without a copy where it is there; bfloat16 and shorter types as float32."""
    if isinstance(array, torch.Tensor):
        array = array.detach()
        array = (
            (array.float() if array.dtype not in NUMPY_FLOATS and array.is_floating_point() else array).cpu().numpy()
        )
    elif library(array) == "cupy":
        array = array.get()
    numpy_array: npt.NDArray[Any] = np.asarray(array)
    return numpy_array


def like(array: npt.NDArray[Any], example: Array) -> Array:
    """``array`` as the kind of ``example``, on the device of a tensor."""
    return torch.from_numpy(array).to(example.device) if isinstance(example, torch.Tensor) else array


def _positions(bad: npt.NDArray[Any]) -> str:
    more = ", ..." if len(bad) > NAMED_POSITIONS else ""
    return ", ".join(str(i) for i in bad[:NAMED_POSITIONS]) + more


def on_gpu(array: Array) -> bool:
    """Whether the array is on a GPU."""
    return array.is_cuda if isinstance(array, torch.Tensor) else library(array) == "cupy"


def home(array: Array) -> str:
    """The array's library and, on a GPU, its device."""
    return f"{library(array)} {array.device}" if on_gpu(array) else library(array)


def _is_dtype(array: Array, kind: str) -> bool:
    """Whether elements are of the kind "float" or "int"."""
    if isinstance(array, torch.Tensor):
        integer = not (array.is_floating_point() or array.is_complex() or array.dtype == torch.bool)
        return array.is_floating_point() if kind == "float" else integer
    return array.dtype.kind in ("f" if kind == "float" else "iu")


def _form(array: Array) -> str:
    return f"{str(array.dtype).removeprefix('torch.')} {tuple(array.shape)}"
