"""What a compiled function launches on a GPU, counted without one: inductor plans its kernels and nothing is compiled.

The function is traced on the CPU, forward and backward. Then inductor lowers both graphs for a GPU with the properties
of an H200, and its scheduler fuses them. A kernel of Triton and a call of a library (a convolution, a product) count as
one each. The backward pass of a convolution is one call. Copies of inputs into CUDA graphs are not counted.
"""

import copy
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, fx
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._inductor import compile_fx, debug, scheduler
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.fx_passes.joint_graph import joint_graph_passes
from torch._inductor.graph import GraphLowering
from torch._inductor.virtualized import V
from torch._subclasses import FakeTensorMode
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

GPU = torch.device("cuda", 0)
H200 = SimpleNamespace(
    name="H200", major=9, minor=0, multi_processor_count=132, warp_size=32, max_threads_per_multi_processor=2048,
    max_threads_per_block=1024, regs_per_multiprocessor=65536, total_memory=141 * 10**9, L2_cache_size=50 * 2**20,
    shared_memory_per_block=49152, shared_memory_per_block_optin=232448, gcnArchName="",
)  # fmt: skip


class _TracedError(Exception):
    """Ends a call when its graphs are known."""


def count_launches(function: Callable[..., Any], *arguments: Any) -> Counter[str]:
    """Launches of the function and of its backward pass by kind: pointwise, reduction, foreach, and calls by name.

    arguments: on the CPU; tensors of four dimensions and weights of convolutions in channels_last.
    """
    launches: Counter[str] = Counter()
    for graph, inputs, is_inference in _traced(function, arguments):
        launches.update(filter(None, map(_kind, _planned(graph, inputs, is_inference=is_inference))))
    return launches


def _traced(function: Callable[..., Any], arguments: Any) -> list[tuple[fx.GraphModule, list[Any], bool]]:
    found: list[tuple[fx.GraphModule, list[Any], bool]] = []

    def stop(*_: Any) -> Callable[..., Any]:
        def run(*_: Any) -> Any:
            raise _TracedError

        return run

    def keep(graph: fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        found.append((copy.deepcopy(graph), list(inputs), True))
        return stop()

    def partition(joint: fx.GraphModule, inputs: Any, **options: Any) -> tuple[fx.GraphModule, fx.GraphModule]:
        joint_graph_passes(joint)
        parts = min_cut_rematerialization_partition(joint, inputs, **options)
        for part in parts:
            values = [node.meta["val"] for node in part.graph.nodes if node.op == "placeholder"]
            found.append((copy.deepcopy(part), values, False))
        return parts

    backend = aot_autograd(
        fw_compiler=stop, bw_compiler=stop, inference_compiler=keep, partition_fn=partition,
        decompositions=select_decomp_table(),
    )  # fmt: skip
    torch.compiler.reset()
    with _layouts_of_weights(), suppress(_TracedError):
        torch.compile(function, backend=backend, fullgraph=True, dynamic=False)(*arguments)
    torch.compiler.reset()
    return found


def _planned(graph: fx.GraphModule, inputs: list[Any], *, is_inference: bool) -> list[Any]:
    """The nodes of inductor's scheduler after fusion."""
    for node in graph.graph.nodes:
        if "device" in node.kwargs:
            node.kwargs = {**node.kwargs, "device": GPU}
    graph.recompile()
    answers = {
        "is_available": True, "device_count": 1, "get_device_properties": H200, "_get_device_properties": H200,
        "current_device": 0, "get_device_capability": (9, 0), "_lazy_init": None, "is_initialized": True,
        "is_bf16_supported": True,
    }  # fmt: skip
    torch._C._ensureCUDADeviceGuardSet()
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:  # before torch takes the GPU for available, and asks its driver
        on_gpu = [_on_gpu(value) for value in inputs]
    with ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(patch.object(torch.cuda, name, lambda *_, answer=answer, **__: answer, create=True))
        stack.enter_context(patch.object(scheduler, "has_triton", lambda: True))
        stack.enter_context(_layouts_of_weights())
        FakeTensorProp(graph, mode).propagate_dont_convert_inputs(*on_gpu)
        stack.enter_context(V.set_fake_mode(mode))
        compile_fx.view_to_reshape(graph)
        compile_fx._recursive_post_grad_passes(graph, is_inference=is_inference)
        FakeTensorProp(graph, mode).propagate_dont_convert_inputs(*on_gpu)
        lowered = GraphLowering(graph, example_inputs=on_gpu, is_inference=is_inference)
        stack.enter_context(V.set_graph_handler(lowered))
        stack.enter_context(debug.DebugContext())
        lowered.run(*on_gpu)
        lowered._update_scheduler()
        return list(lowered.scheduler.nodes)


def _layouts_of_weights() -> Any:
    """A GPU convolves in the layout of the weights; for a tensor without values torch would decide as for a CPU."""
    return patch.object(torch._C, "_conv_determine_backend_memory_format", lambda *_: torch.channels_last)


def _on_gpu(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=GPU)


def _kind(node: Any) -> str:
    """Of what is launched; empty for a node that launches nothing."""
    if isinstance(node, scheduler.NopKernelSchedulerNode):
        return ""
    if isinstance(node, scheduler.ExternKernelSchedulerNode):
        name = str(getattr(node.node, "python_kernel_name", None) or type(node.node).__name__)
        return "" if name == "MultiOutput" else name.rpartition("kernels.")[2].removeprefix("torch.ops.")
    if isinstance(node, scheduler.ForeachKernelSchedulerNode):
        return "foreach"
    return "reduction" if node.is_reduction() else "pointwise"
