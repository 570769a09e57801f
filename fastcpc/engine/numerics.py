"""Device, autocast, memory format and compilation of a run."""

import functools
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler

from fastcpc import distributed
from fastcpc.config.names import DATASETS
from fastcpc.config.schema import Config
from fastcpc.errors import InputError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BFLOAT16_SINCE = (8, 0)  # compute capability of the first GPUs with bfloat16 arithmetic
BACKEND = "inductor"
COMPILERS = {"cpu": ("g++", "clang++", "c++"), "cuda": ("gcc", "clang", "cc")}  # Triton builds its launchers with one
GRAPHS = "graphs"  # compile: CUDA graphs as torch.compile records them, without its search for faster kernels
# A network that is compiled alone is called several times before its results are read. A CUDA graph overwrites them.
WITHOUT_GRAPHS = {"max-autotune": "max-autotune-no-cudagraphs"}
SCORE_BATCH, LARGE_SCORE_BATCH = 512, 2048  # samples per batch without gradients
LARGE_SCORE_MEMORY = 15e9  # bytes of a GPU that is sold as 16 GB

Region = TypeVar("Region", bound=Callable[..., object])


@dataclass(frozen=True)
class Numerics:
    """device: where everything lives. dtype: type of activations; weights, losses and sums stay float32.

    compile: false, default, graphs or max-autotune: what ``auto`` stands for here. compiles_steps: whether training
    steps are compiled whole; with several ranks messages travel in their middle, and the networks alone are compiled.
    score_batch: samples per batch of scoring and evaluation, to which compiled code pads a shorter last batch; 0: no
    padding.
    """

    device: torch.device
    dtype: torch.dtype
    compile: str = "false"
    compiles_steps: bool = False
    score_batch: int = 0

    def autocast(self) -> AbstractContextManager[object]:
        """The context of a forward pass."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    def scaler(self) -> GradScaler:
        """Scales losses so that float16 gradients do not vanish; does nothing for other types."""
        return GradScaler(self.device.type, enabled=self.dtype == torch.float16)

    def step(self, function: Region) -> Region:
        """A training step's way from images to losses, compiled whole where that can be; its backward pass with it."""
        return self._region(function) if self.compiles_steps else function

    def inference(self, function: Region) -> Region:
        """A forward pass without a gradient, compiled whole where compilation is asked for."""
        return function if self.compile == "false" else self._region(function)

    def wait(self) -> None:
        """Until the device has done all that is queued."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _region(self, function: Region) -> Region:
        return compiled_once(function, self.compile, self.device.type)  # type: ignore[return-value]

    def prepare(self, network: nn.Module) -> nn.Module:
        """Move a network to the device, lay its weights out channels_last where that is safe; with several ranks
        compile it where asked for."""
        network.to(self.device)
        if self.device.type == "cuda" or not has_narrow_strides(network):
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.compile != "false" and not self.compiles_steps:
            network.compile(**_options(WITHOUT_GRAPHS.get(self.compile, self.compile)))
        return network


def _options(mode: str) -> dict[str, object]:
    # Shapes are those of the run and never change; a float that varies comes in as a tensor.
    whole: dict[str, object] = {"backend": BACKEND, "dynamic": False}
    if mode == "default" or BACKEND != "inductor":
        return whole
    return whole | ({"options": {"triton.cudagraphs": True}} if mode == GRAPHS else {"mode": mode})


@functools.cache
def compiled_once(function: Callable[..., object], mode: str, device_type: str) -> Callable[..., object]:
    """The function in one graph, or an error: a break in it would be a way back to Python in each step."""
    whole: Callable[..., object] = torch.compile(function, fullgraph=True, **_options(mode))  # type: ignore[call-overload]
    if device_type != "cuda" or mode not in (GRAPHS, "max-autotune"):
        return whole

    @functools.wraps(function)
    def replayed(*args: object) -> object:
        torch.compiler.cudagraph_mark_step_begin()  # what the call before returned is overwritten from here on
        return whole(*args)

    return replayed


def has_narrow_strides(network: nn.Module) -> bool:
    """Whether a network has a strided 1x1 convolution of fewer than 16 channels.

    On a CPU, in float32 and channels_last, oneDNN's backward pass of such a layer writes past its buffer: torch 2.11
    crashed at width 8. For all other layers channels_last is about 2x faster on a CPU.
    """
    return any(
        max(layer.stride) > 1 and max(layer.kernel_size) == 1 and layer.in_channels // layer.groups < 16
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d)
    )


@dataclass(frozen=True)
class Arithmetic:
    """What a device can do. device_type: cpu or cuda. cpu_bf16: whether the CPU multiplies bfloat16 (AMX, AVX512-BF16,
    or ARM's BF16). capability: of the GPU."""

    device_type: str
    cpu_bf16: bool = False
    capability: tuple[int, int] = (0, 0)


def probe(device: torch.device) -> Arithmetic:
    """What this machine's device can do."""
    if device.type == "cuda":
        return Arithmetic("cuda", capability=torch.cuda.get_device_capability(device))
    able = torch.cpu.get_capabilities()
    return Arithmetic("cpu", cpu_bf16=any(able.get(name, False) for name in ("amx_bf16", "avx512_bf16", "bf16")))


def choose_precision(asked: str, can: Arithmetic) -> str:
    """fp32, bf16 or fp16: what ``precision`` stands for on a device. InputError for what it cannot do."""
    has_bf16 = can.cpu_bf16 if can.device_type == "cpu" else can.capability >= BFLOAT16_SINCE
    if asked == "auto":
        if has_bf16:
            return "bf16"
        return "fp32" if can.device_type == "cpu" else "fp16"
    if asked == "fp16" and can.device_type == "cpu":
        raise InputError("precision: fp16 needs a GPU; use precision=bf16 or fp32 on a CPU")
    if asked == "bf16" and can.device_type == "cuda" and not has_bf16:
        raise InputError(
            f"precision: bf16 needs a GPU of compute capability {BFLOAT16_SINCE[0]}.{BFLOAT16_SINCE[1]} or later, and "
            f"this one has {can.capability[0]}.{can.capability[1]}; use precision=fp16 or fp32"
        )
    return asked


def resolve_numerics(config: Config) -> Numerics:
    """Device and type that ``auto`` stands for here. InputError for a GPU that is not there."""
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise InputError("device=cuda: torch finds no usable GPU here; use device=cpu or device=auto")
    device = torch.device("cpu")
    if available and config.device != "cpu":
        if distributed.local_rank() >= torch.cuda.device_count():
            raise InputError(
                f"{torch.cuda.device_count()} GPUs here, and this is process {distributed.local_rank() + 1} of the "
                "machine: start as many processes as GPUs (torchrun --nproc-per-node), or use device=cpu"
            )
        device = torch.device("cuda", distributed.local_rank()) if distributed.has_group() else torch.device("cuda")
    precision = choose_precision(config.precision, probe(device))
    compiled, _ = choose_compile(config.compile, device)
    compiles_steps = compiled != "false" and not distributed.has_group()
    return Numerics(device, DTYPES[precision], compiled, compiles_steps, choose_score_batch(config, device))


def choose_score_batch(config: Config, device: torch.device) -> int:
    """``train.score_batch_size``, or what 0 is on a device: larger where small images leave a GPU idle.

    Several ranks share the batches of a pass. Few large batches would leave ranks without work.
    """
    if config.train.score_batch_size:
        return config.train.score_batch_size
    if device.type != "cuda" or distributed.has_group() or DATASETS[config.data.name].kind != "arrays":
        return SCORE_BATCH
    return LARGE_SCORE_BATCH if torch.cuda.mem_get_info(device)[1] >= LARGE_SCORE_MEMORY else SCORE_BATCH


def choose_compile(asked: str, device: torch.device) -> tuple[str, str]:
    """false, default, graphs or max-autotune: what ``compile`` is on a device, and why ``auto`` is that.

    InputError: compilation is requested without a compiler, or CUDA graphs without a GPU or with several processes.
    """
    found = any(map(shutil.which, COMPILERS[device.type]))
    named = ", ".join(COMPILERS[device.type])
    if asked == "auto":
        if device.type != "cuda":
            return "false", "no GPU"
        if distributed.has_group():
            return "false", "several processes"
        return ("default", "one GPU") if found else ("false", f"none of {named} is found")
    if asked == GRAPHS and device.type != "cuda":
        raise InputError("compile=graphs: CUDA graphs need a GPU, and this run has none; use compile=default or false")
    if asked == GRAPHS and distributed.has_group():
        raise InputError(
            "compile=graphs: CUDA graphs replay the steps of one process, and ranks communicate within a step; start "
            "one process, or use compile=default"
        )
    if asked != "false" and not found:
        raise InputError(
            f"compile={asked}: torch.compile needs a compiler here, and none of {named} is found; install one "
            "(apt install g++), or use compile=false"
        )
    return asked, ""


def set_determinism(config: Config, numerics: Numerics) -> None:
    """Set torch's deterministic algorithms (always on a CPU, on a GPU by ``run.deterministic``) and TF32 (``tf32``)."""
    deterministic = numerics.device.type == "cpu" or config.run.deterministic
    torch.use_deterministic_algorithms(deterministic, warn_only=False)
    torch.backends.cudnn.benchmark = not deterministic
    torch.set_float32_matmul_precision("high" if config.tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = config.tf32


def leave_memory_unfilled() -> None:
    """Let torch leave new memory as it is. With deterministic algorithms it otherwise fills each new tensor with NaN.

    That shows a read of memory that nothing has written, and the tests keep it. It changes no result and costs a pass
    over the memory. ``fastcpc-train`` calls this once.
    """
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
