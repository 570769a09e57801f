"""The mixtures on a GPU: one launch of gmm_em.cu for all groups and all iterations. The only importer of cupy.

Arrays are CuPy's or torch's (by DLPack, without a copy); work is queued on the current stream of their library. The
host looks at the device once, after everything is queued: whether values, group ids and start were sound.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from .gmm_checks import on_gpu
from .gmm_numpy import MIN_SAMPLES, MIN_VARIANCE

THREADS = 256  # of a block, as in the source
BLOCKS_PER_MULTIPROCESSOR = 2  # resident at once, by the source's launch bounds
VALUES_PER_THREAD = 4  # below this, another block of a team costs more in waiting than it saves
BINS, SUMS = 256, 7  # as in the source
SOURCE = Path(__file__).with_name("gmm_em.cu")
VALUE_TYPES = {"float32": "float", "float64": "double"}
OPTIONS = ("--std=c++17",)
INT = np.int32
LONG = np.int64
DOUBLE = np.float64


logger = logging.getLogger("fastcpc")


class DeviceOrder(NamedTuple):
    """Where the samples of each group are: a stable order by group, and where groups begin in it (G + 1,)."""

    order: Any
    offsets: Any


class BadInput(NamedTuple):
    """What the device found in its input."""

    values: int  # 1 where some are not finite
    groups: int  # 1 where some ids are out of range
    start: int  # 1 + a group whose start is no mixture, or 0


def plan_teams(num_samples: int, num_groups: int, multiprocessors: int) -> tuple[int, int]:
    """How many teams of how many blocks: all resident at once, a group's blocks busy, groups side by side."""
    resident = multiprocessors * BLOCKS_PER_MULTIPROCESSOR
    useful = -(-num_samples // (num_groups * THREADS * VALUES_PER_THREAD))
    size = max(1, min(useful, resident // num_groups))
    return min(num_groups, resident // size), size


def order_on_device(groups: Any, num_groups: int) -> DeviceOrder:
    """Sorts once what every fit of the same groups needs."""
    with _current(groups) as cupy:
        ids = _view(groups).astype(INT)  # the fit reports an id beyond that as an error
        order = cupy.argsort(ids, kind="stable")
        return DeviceOrder(order, cupy.searchsorted(ids[order], cupy.arange(num_groups + 1, dtype=INT)).astype(LONG))


def fit_on_device(
    values: Any,
    groups: Any | None,
    num_groups: int,
    order: DeviceOrder | None,
    start: Sequence[Any] | None,
    max_iter: int,
    tol: float,
    reg_covar: float,
) -> tuple[list[Any], BadInput]:
    """``fit_gmm`` on arguments whose kinds and shapes were checked: the seven arrays of a MixtureFit."""
    with _current(values) as cupy:
        x = _values(values)
        problems = _inspect(x, groups, num_groups)
        if order is None and groups is not None:
            order = order_on_device(groups, num_groups)
        offsets = cupy.array([0, len(x)], dtype=LONG) if order is None else order.offsets
        ordered = x if order is None else x[order.order]
        stacked = np.uintp(0) if start is None else cupy.stack([_doubles(part) for part in start])
        teams, size = plan_teams(len(x), num_groups, _multiprocessors())
        outputs = [_empty(values, (num_groups, 2), torch.float64) for _ in range(3)]
        for dtype in (torch.float64, torch.int64, torch.bool, torch.bool):
            outputs.append(_empty(values, (num_groups,), dtype))
        bins, arrived = cupy.zeros((num_groups, BINS), dtype=INT), cupy.zeros(teams, dtype=np.uint32)
        sums = cupy.empty((teams, 2, size, SUMS))
        limits = (INT(max_iter), DOUBLE(tol), DOUBLE(reg_covar), LONG(MIN_SAMPLES), DOUBLE(MIN_VARIANCE))
        fixed = (ordered, offsets, INT(num_groups), INT(size), stacked, *limits, bins, arrived, sums)
        _kernel(cupy, "fit", x.dtype.name)(
            (teams * size,),
            (THREADS,),
            (*fixed, *(_view(output) for output in outputs), problems[2:]),
        )
        return outputs, _read(problems)


def posterior_on_device(values: Any, groups: Any | None, mixture: Sequence[Any]) -> tuple[Any, BadInput]:
    """Posteriors (N,) of the first component of ``mixture``: means, variances and weights, (G, 2) each."""
    with _current(values):
        x, num_groups = _values(values), mixture[0].shape[0]
        problems = _inspect(x, groups, num_groups)
        out = _empty(values, (len(x),), torch.float64)
        _over_samples("posterior", x, groups, num_groups, *(_view(part) for part in mixture), _view(out))
        return out, _read(problems)


def _inspect(x: Any, groups: Any | None, num_groups: int) -> Any:
    problems = _cupy().zeros(len(BadInput._fields), dtype=INT)
    _over_samples("inspect", x, groups, num_groups, problems)
    return problems


def _read(problems: Any) -> BadInput:
    """Waits for the device: the one time that the host does."""
    return BadInput(*problems.get().tolist())


def _over_samples(name: str, x: Any, groups: Any | None, num_groups: int, *rest: Any) -> None:
    """Launches a kernel that walks over all samples."""
    if not len(x):
        return
    blocks = min(-(-len(x) // THREADS), 8 * _multiprocessors())
    ids = np.uintp(0) if groups is None else _cupy().ascontiguousarray(_view(groups).astype(LONG, copy=False))
    _kernel(_cupy(), name, x.dtype.name)((blocks,), (THREADS,), (x, ids, LONG(len(x)), LONG(num_groups), *rest))


def _values(values: Any) -> Any:
    """A contiguous CuPy array of float64 for float64, of float32 for all shorter types (which it holds exactly)."""
    if isinstance(values, torch.Tensor) and values.dtype == torch.bfloat16:  # NumPy and CuPy have no such type
        values = values.float()
    x = _view(values)
    return _cupy().ascontiguousarray(x.astype(DOUBLE if x.dtype == DOUBLE else np.float32, copy=False))


def _doubles(array: Any) -> Any:
    return _view(array.double() if isinstance(array, torch.Tensor) else array.astype(DOUBLE))


def _view(array: Any) -> Any:
    """A CuPy array on the same memory."""
    if not isinstance(array, torch.Tensor):
        return array
    return _cupy().from_dlpack(array.detach().view(torch.uint8) if array.dtype == torch.bool else array.detach())


def _empty(example: Any, shape: tuple[int, ...], dtype: torch.dtype) -> Any:
    """Memory of the example's library, so that its own allocator keeps track of it."""
    if isinstance(example, torch.Tensor):
        return torch.empty(shape, dtype=dtype, device=example.device)
    return _cupy().empty(shape, dtype=str(dtype).removeprefix("torch."))


@contextmanager
def _current(array: Any) -> Iterator[Any]:
    """CuPy on the array's device and, for a torch tensor, on torch's current stream."""
    cupy = _cupy()
    if not isinstance(array, torch.Tensor):
        with array.device:
            yield cupy
        return
    stream = cupy.cuda.Stream.from_external(torch.cuda.current_stream(array.device))
    with cupy.cuda.Device(array.device.index), stream:
        yield cupy


def takes(array: Any) -> bool:
    """Whether this module computes on an array: it is on a GPU, and CuPy works here. It logs once if CuPy does not."""
    return on_gpu(array) and (not isinstance(array, torch.Tensor) or not problem())


@cache
def problem() -> str:
    """Why CuPy cannot fit mixtures here; empty where it can. Tensors on a GPU are then fitted on the CPU."""
    try:
        _kernel(_cupy(), "inspect", "float32")
    except Exception as error:  # of the import, of the compiler, of the driver: CuPy has a class for each
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        logger.warning(
            "mixtures of tensors on a GPU are fitted on the CPU, because CuPy cannot be used (%s); "
            "pip install 'fastcpc[gpu]'",
            reason,
        )
        return reason
    return ""


def _cupy() -> Any:
    import cupy

    return cupy


@cache
def _kernel(cupy: Any, name: str, value: str) -> Any:
    """A kernel of the source for values of a dtype. A cooperative launch of fit: its blocks wait for each other."""
    options = (f"-DVALUE={VALUE_TYPES[value]}", *OPTIONS)
    source = SOURCE.read_text(encoding="ascii")
    module = cupy.RawModule(code=source, options=options, enable_cooperative_groups=name == "fit")
    return module.get_function(name)


def _multiprocessors() -> int:
    return int(_cupy().cuda.Device().attributes["MultiProcessorCount"])
