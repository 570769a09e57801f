"""A GPU that is not there: tensors that say they are on cuda:0, hold their values in main memory, and obey its rules.

Code that decides by ``tensor.device`` takes its way for a GPU, and computes the values that it would on a CPU. What a
GPU refuses is refused: an operation on tensors of both places, a fused update of tensors of different strides. What
makes the host wait for a GPU is counted, or refused where nothing may wait: reading a value, and a shape that depends
on values. So are copies to main memory, and copies to the device that are not ``non_blocking``. A ``non_blocking`` copy
to pinned main memory waits for nothing: it holds wrong values until an event recorded after it is waited for. A graph
repeats the operations of its capture on the same tensors. A capture changes no value, and refuses what waits. What
cannot be seen this way is what only a device does: streams, launches of Triton and CuPy, another rounding.

FakeTensor, torch's own, has no values to continue with after a read, and its backward pass wants a driver.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

from fastcpc.data.augment import fused_check
from fastcpc.kernels import gmm_cupy, gmm_em

GPU = torch.device("cuda", 0)
CAPABILITY = (9, 0)
FREE_BYTES = 64 * 2**30
aten = torch.ops.aten
WAITING_TAGS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
FUSED = {aten._fused_sgd_.default, aten._fused_sgd_.tensor_lr}  # parameters, gradients, momentum
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
# what autocast computes in its type, and in float32, of what our networks and losses call
PRODUCTS = {F.linear, F.conv2d, torch.mm, torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.addmm}
EXACT = {F.cross_entropy, F.softmax, F.log_softmax, torch.softmax, Tensor.softmax, torch.log_softmax, torch.logsumexp}


class WaitsForDeviceError(AssertionError):
    """The host would stop until the device has done all that is queued."""


class MixedDevicesError(AssertionError):
    """An operation on tensors in main memory and on the device."""


class MixedLayoutsError(AssertionError):
    """A fused update of a parameter whose gradient or momentum has other strides."""


class OnGpu(Tensor):
    """A tensor on the pretended device; ``held``: its values, in main memory."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnGpu":
        form = torch.empty_strided(held.shape, held.stride(), dtype=held.dtype, device="meta")
        # the dispatcher takes it for a CUDA tensor, the autograd engine sees no device to wait for
        self: OnGpu = Tensor._make_subclass(cls, form, False, device_for_backend_keys=GPU)
        self.held = held
        return self

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return GPU

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    @property
    def is_meta(self) -> bool:  # type: ignore[override]
        return False

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copied = self.detach().clone()  # torch copies the storage, which is on the meta device here
        return torch.nn.Parameter(copied, self.requires_grad) if isinstance(self, torch.nn.Parameter) else copied

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnGpu({self.held!r})"

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func}: a tensor of the pretended GPU is used outside of it")


class PretendGpu(TorchDispatchMode):
    """Runs every operation on the pretended device by its values.

    waits: what made the host wait, by operation. refuses: whether that is an error.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.refuses = False
        self.late: list[tuple[Tensor, Tensor]] = []  # copies in pinned memory, and the values that they get
        self._pinned = WeakIdKeyDictionary()
        self.captured: PretendGraph | None = None  # the graph that is being captured
        self.replays = 0

    @contextmanager
    def capture(self, graph: "PretendGraph", **options: Any) -> Iterator[None]:
        """Within it operations go into the graph; their results have no meaning."""
        self.captured = graph
        try:
            with self.hot():
                yield
        finally:
            self.captured = None
            graph.restore()

    def replay(self, graph: "PretendGraph") -> None:
        """Repeat the operations of a graph."""
        self.replays += 1
        with _disable_current_modes():
            for func, args, kwargs, outputs in graph.calls:
                results = zip(tree_leaves(outputs), tree_leaves(func(*args, **kwargs)), strict=True)
                for kept, made in results:
                    if isinstance(kept, Tensor) and kept is not made:
                        kept.copy_(made)

    @contextmanager
    def hot(self) -> Iterator[None]:
        """Within it nothing may wait for the device."""
        before, self.refuses = self.refuses, True
        try:
            yield
        finally:
            self.refuses = before

    def pinned(self, tensor: Tensor) -> Tensor:
        """A copy in pinned memory."""
        copied = tensor.clone()
        self._pinned[copied] = True
        return copied

    def arrive(self, number: int) -> None:
        """The first so many late copies get their values."""
        for copied, values in self.late[:number]:
            copied.copy_(values)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        inputs = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
        ours, late = [tensor for tensor in inputs if isinstance(tensor, OnGpu)], False
        if func is aten._to_copy.default:
            to_gpu = bool(ours) if kwargs.get("device") is None else _is_gpu(kwargs["device"])
            late = self._note_copy(func, bool(ours), to_gpu, kwargs.get("non_blocking", False), pinned=True)
        elif func is aten.copy_.default:
            to_gpu = isinstance(args[0], OnGpu)
            non_blocking = args[2] if len(args) > 2 else False
            late = self._note_copy(func, isinstance(args[1], OnGpu), to_gpu, non_blocking, args[0] in self._pinned)
        else:
            asked = kwargs.get("device")
            to_gpu = bool(ours) if asked is None else _is_gpu(asked)
            if ours:
                self._check(func, args, inputs)
        if kwargs.get("device") is not None:
            kwargs["device"] = torch.device("cpu")
        pins = kwargs.pop("pin_memory", None)
        wrappers = {id(tensor.held): tensor for tensor in ours}
        plain_args, plain_kwargs = tree_map_only(OnGpu, lambda tensor: tensor.held, (args, kwargs))
        if self.captured is not None:
            self.captured.note_writes(func, plain_args, plain_kwargs)
        result = self.compute(func, plain_args, plain_kwargs, from_gpu=bool(ours), to_gpu=to_gpu)
        if self.captured is not None and (ours or to_gpu) and not func.is_view:
            self.captured.calls.append((func, plain_args, plain_kwargs, result))
        if late:
            self.late.append((result, result.clone()))
            result.fill_(torch.nan if result.is_floating_point() else 1)
        if pins:
            self._pinned[result] = True
        if not to_gpu:
            return result

        def wrapped(tensor: Tensor) -> Tensor:
            return wrappers[id(tensor)] if id(tensor) in wrappers else OnGpu(tensor)

        return tree_map_only(Tensor, wrapped, result)

    def compute(self, func: Any, args: Any, kwargs: Any, *, from_gpu: bool, to_gpu: bool) -> Any:
        """The operation by its values in main memory."""
        return func(*args, **kwargs)

    def _check(self, func: Any, args: Any, inputs: list[Tensor]) -> None:
        others = [tensor for tensor in inputs if not isinstance(tensor, OnGpu)]
        indices = [index for index in args[1] if index is not None] if func in INDEXING else []
        if any(not isinstance(index, OnGpu) for index in indices):
            self._wait(f"{func} by an index in main memory")
            others = [tensor for tensor in others if not any(tensor is index for index in indices)]
        takes_scalars = torch.Tag.pointwise in func.tags or func in INDEXING
        for tensor in others:
            if tensor.ndim or not takes_scalars:
                raise MixedDevicesError(f"{func}: {tuple(tensor.shape)} on cpu beside tensors on {GPU}")
        if func in FUSED and not all(map(_same_strides, args[0] * 2, [*args[1], *args[2]])):
            raise MixedLayoutsError(str(func))
        if func in INDEXING:
            waits = any(index.dtype in (torch.bool, torch.uint8) for index in indices)
        else:
            waits = bool(WAITING_TAGS & set(func.tags))
        if waits:
            self._wait(str(func))

    def _note_copy(self, func: Any, from_gpu: bool, to_gpu: bool, non_blocking: bool, pinned: bool) -> bool:
        """Whether a copy arrives later; pinned: its target, if that is main memory."""
        if from_gpu and not to_gpu and non_blocking and pinned:
            return True
        if from_gpu and not to_gpu:
            self._wait(f"{func} to main memory")
        if to_gpu and not from_gpu and self.captured is not None:
            raise WaitsForDeviceError(f"{func} from main memory in a graph")
        if to_gpu and not from_gpu and not non_blocking:
            self._wait(f"{func} to the device, not non_blocking")
        return False

    def _wait(self, what: str) -> None:
        if self.refuses:
            raise WaitsForDeviceError(what)
        self.waits[what] += 1


class PretendGraph:
    """A captured graph: calls with their arguments and results, as values in main memory."""

    def __init__(self, gpu: PretendGpu) -> None:
        self._gpu = gpu
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self._before: list[tuple[Tensor, Tensor]] = []  # what a capture wrote to, and its values before

    def note_writes(self, func: Any, args: Any, kwargs: Any) -> None:
        """Keep the values of what an operation changes."""
        for place, argument in enumerate(func._schema.arguments):
            value = args[place] if place < len(args) else kwargs.get(argument.name)
            if argument.alias_info is not None and argument.alias_info.is_write:
                self._before += [
                    (part, part.clone()) for part in tree_leaves(value) if isinstance(part, Tensor) and not part.is_meta
                ]

    def restore(self) -> None:
        """Undo what the capture changed."""
        with _disable_current_modes():
            for written, values in reversed(self._before):
                written.copy_(values)
        self._before = []

    def pool(self) -> tuple[int, int]:
        return (0, 1)

    def replay(self) -> None:
        self._gpu.replay(self)


class LateEvent:
    """An event of the pretended device; it lets the copies before it arrive."""

    def __init__(self, gpu: PretendGpu) -> None:
        self._gpu, self._number = gpu, 0

    def record(self, *_: Any) -> None:
        self._number = len(self._gpu.late)

    def synchronize(self) -> None:
        self._gpu.arrive(self._number)


class Autocast(TorchFunctionMode):
    """Casts as autocast does on a GPU: torch's own knows real devices alone."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.is_autocast_enabled("cuda") and (func in PRODUCTS or func in EXACT):
            dtype = torch.get_autocast_dtype("cuda") if func in PRODUCTS else torch.float32

            def cast(tensor: OnGpu) -> Tensor:
                return tensor.to(dtype) if tensor.is_floating_point() else tensor

            args, kwargs = tree_map_only(OnGpu, cast, (args, kwargs))
        return func(*args, **(kwargs or {}))


def _is_gpu(device: Any) -> bool:
    return torch.device(device).type in ("cuda", "meta")  # meta: what torch's own formulas ask for beside an OnGpu


def _same_strides(one: Tensor, other: Tensor) -> bool:
    strides = zip(one.shape, one.stride(), other.stride(), strict=True)
    return all(step == other_step for length, step, other_step in strides if length > 1)


@contextmanager
def pretended_gpu(gpu: PretendGpu | None = None) -> Iterator[PretendGpu]:
    """torch as on a machine with one GPU. gpu: the pretended device; None: a new one."""
    gpu = PretendGpu() if gpu is None else gpu
    stream = SimpleNamespace(cuda_stream=0)
    answers = {
        "_lazy_init": None, "is_available": True, "device_count": 1, "is_bf16_supported": True,
        "get_device_capability": CAPABILITY, "get_device_name": "pretended GPU", "memory_reserved": 0,
        "memory_allocated": 0, "mem_get_info": (FREE_BYTES, FREE_BYTES), "current_stream": stream,
        "manual_seed_all": None, "set_stream": None,
    }  # fmt: skip
    only_lift = torch._C._only_lift_cpu_tensors()
    overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
    with ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(patch.object(torch.cuda, name, lambda *_, answer=answer, **__: answer))
        stack.enter_context(patch.object(torch.cuda, "is_current_stream_capturing", lambda: gpu.captured is not None))
        stack.enter_context(patch.object(torch.cuda, "CUDAGraph", lambda: PretendGraph(gpu)))
        stack.enter_context(patch.object(torch.cuda, "graph", gpu.capture))
        stack.enter_context(patch.object(torch.cuda, "Event", lambda **_: LateEvent(gpu)))
        stack.enter_context(patch.object(torch.cuda, "device", lambda *_: nullcontext()))
        stack.enter_context(patch.object(Tensor, "pin_memory", lambda self, *_: gpu.pinned(self)))
        stack.enter_context(patch.object(fused_check, "kernel_problem", lambda *_: "a pretended GPU runs no kernel"))
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))  # its own operations have no form for a CPU
        stack.callback(torch._C._set_only_lift_cpu_tensors, only_lift)
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwrites)
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="cuda"): a copy that can be seen
        torch.__future__.set_overwrite_module_params_on_conversion(True)  # ``held`` is no part of Tensor.data
        stack.enter_context(Autocast())
        torch._C._ensureCUDADeviceGuardSet()  # which GPU "cuda" is, where there is none
        stack.enter_context(gpu)
        stack.enter_context(patch.object(torch.cuda, "synchronize", lambda *_: gpu._wait("synchronize")))
        yield gpu


@contextmanager
def kernels_on_cpu() -> Iterator[None]:
    """Mixtures, and the prototype loss, of tensors on the pretended device by their forms for a CPU."""

    def order(groups: Tensor, num_groups: int) -> None:
        return None

    def fit(values: Tensor, groups: Any, num_groups: int, order: Any, start: Any, *limits: Any) -> Any:
        names = dict(zip(("max_iter", "tol", "reg_covar"), limits, strict=True))
        begin = None if start is None else tuple(part.cpu() for part in start)
        made = gmm_em.fit_gmm(values.cpu(), None if groups is None else groups.cpu(), num_groups, init=begin, **names)
        return [part.to(values.device) for part in vars(made).values()], gmm_cupy.BadInput(0, 0, 0)

    def posterior(values: Tensor, groups: Any, mixture: Any) -> Any:
        made = gmm_em.MixtureFit(*(part.cpu() for part in mixture), *[None] * 4)
        found = made.clean_probability(values.cpu(), None if groups is None else groups.cpu())
        return found.to(values.device), gmm_cupy.BadInput(0, 0, 0)

    loss = sys.modules["fastcpc.kernels.prototype_loss"]  # in the package a function has the module's name
    with (
        patch.object(gmm_cupy, "problem", lambda: ""),
        patch.multiple(gmm_cupy, order_on_device=order, fit_on_device=fit, posterior_on_device=posterior),
        patch.object(loss, "_pick", lambda *_: "torch"),
    ):
        yield


class Launches:
    """A Triton kernel that notes its launches, all of whose tensors must be on the device, and writes nothing."""

    def __init__(self) -> None:
        self.count = 0

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(*arguments: Any, **options: Any) -> None:
            assert all(isinstance(argument, OnGpu) for argument in arguments if isinstance(argument, Tensor))
            self.count += 1

        return launch
