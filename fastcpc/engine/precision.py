"""Where and in which format a run computes: device, autocast, memory format, compilation. All is set here."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler

from fastcpc import ranks
from fastcpc.config.schema import Config
from fastcpc.errors import InputError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Numerics:
    """device: where everything lives. dtype: type of activations; weights, losses and sums stay float32."""

    device: torch.device
    dtype: torch.dtype

    def autocast(self) -> AbstractContextManager[object]:
        """The context of a forward pass."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    def scaler(self) -> GradScaler:
        """Scales losses so that float16 gradients do not vanish; does nothing for other types."""
        return GradScaler(self.device.type, enabled=self.dtype == torch.float16)

    def prepare(self, network: nn.Module, compile_mode: str) -> nn.Module:
        """Move a network to the device, lay its weights out channels_last where that is safe, compile where asked
        for."""
        network.to(self.device)
        if self.device.type == "cuda" or not has_narrow_strides(network):
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if compile_mode != "false":
            network.compile(mode=None if compile_mode == "default" else compile_mode)
        return network


def has_narrow_strides(network: nn.Module) -> bool:
    """Whether a network has a strided 1x1 convolution of fewer than 16 channels.

    On a CPU, in float32 and channels_last, oneDNN's backward pass of such a layer writes past its buffer (seen with
    torch 2.11 as crashes at width 8); channels_last is about twice as fast there for all other layers.
    """
    return any(
        max(layer.stride) > 1 and max(layer.kernel_size) == 1 and layer.in_channels // layer.groups < 16
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d)
    )


def resolve_numerics(config: Config) -> Numerics:
    """Device and type that ``auto`` stands for here. InputError for a GPU that is not there."""
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise InputError(
            "device: cuda is asked for, but torch finds no usable GPU here; use device=cpu, or device=auto"
        )
    device = torch.device("cpu")
    if available and config.device != "cpu":
        if ranks.local_rank() >= torch.cuda.device_count():
            raise InputError(
                f"{torch.cuda.device_count()} GPUs here, and this is process {ranks.local_rank() + 1} of the machine: "
                "start as many processes as GPUs (torchrun --nproc-per-node), or use device=cpu"
            )
        device = torch.device("cuda", ranks.local_rank()) if ranks.size() > 1 else torch.device("cuda")
    precision = config.precision
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" else "fp32"
    if device.type == "cpu" and precision == "fp16":
        raise InputError("precision: fp16 needs a GPU; use precision=bf16 or fp32 on a CPU")
    return Numerics(device, DTYPES[precision])


def set_determinism(config: Config, numerics: Numerics) -> None:
    """Ask torch for deterministic algorithms: always on a CPU, on a GPU by ``run.deterministic`` (it costs speed
    there)."""
    deterministic = numerics.device.type == "cpu" or config.run.deterministic
    torch.use_deterministic_algorithms(deterministic, warn_only=False)
    torch.backends.cudnn.benchmark = not deterministic
