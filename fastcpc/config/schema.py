"""Every setting of a run: name, type, default, range, meaning, source.

A section is a frozen dataclass in ``sections``. It checks its own settings when it is created. ``validation`` checks
the rules between settings.
"""

from dataclasses import dataclass, field
from typing import Literal

from fastcpc.config.sections.base import Section, setting
from fastcpc.config.sections.data import AugmentConfig, DataConfig, NoiseConfig
from fastcpc.config.sections.method import CleanerConfig, CpcConfig, ModelConfig, SemisupConfig
from fastcpc.config.sections.training import EmaConfig, LogConfig, OptimConfig, ParallelConfig, RunConfig, TrainConfig

__all__ = [
    "AugmentConfig",
    "CleanerConfig",
    "Config",
    "CpcConfig",
    "DataConfig",
    "EmaConfig",
    "LogConfig",
    "ModelConfig",
    "NoiseConfig",
    "OptimConfig",
    "ParallelConfig",
    "RunConfig",
    "SemisupConfig",
    "TrainConfig",
]


@dataclass(frozen=True, kw_only=True)
class Config(Section):
    """A whole run."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    cleaner: CleanerConfig = field(default_factory=CleanerConfig)
    cpc: CpcConfig = field(default_factory=CpcConfig)
    semisup: SemisupConfig = field(default_factory=SemisupConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    log: LogConfig = field(default_factory=LogConfig)
    device: Literal["auto", "cpu", "cuda"] = setting("auto", "Device; auto: cuda where available, else cpu.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = setting(
        "auto",
        "Type of activations. auto: bf16 where the device computes with it (GPUs of compute capability 8.0 and later, "
        "CPUs with AMX or AVX512-BF16); otherwise fp16 on a GPU and fp32 on a CPU.",
    )
    tf32: bool = setting(False, "On a GPU, use TF32 for float32 products: faster, with 10 instead of 23 mantissa bits.")
    compile: Literal["auto", "false", "default", "graphs", "max-autotune"] = setting(
        "auto",
        "Use torch.compile for the training step (from images to losses) and for inference; with several processes, "
        "for the networks and for inference. auto: default on one GPU, otherwise false. graphs: default, replayed as "
        "CUDA graphs, on one GPU. max-autotune: slower to compile, with CUDA graphs on a GPU.",
    )
