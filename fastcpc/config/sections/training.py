"""The settings of the run, its schedule, its processes and its logs."""

from dataclasses import dataclass
from typing import Literal

from fastcpc.config.constraints import Range
from fastcpc.config.sections.base import DIVIDEMIX, OURS, Section, setting


@dataclass(frozen=True, kw_only=True)
class RunConfig(Section):
    """The run itself."""

    name: str = setting("run", "Name of the run. Its folder is runs/NAME unless run.dir is set.")
    dir: str = setting("", "Folder of the run; empty: runs/NAME.")
    seed: int = setting(1, "Seed of all random numbers; noise.seed is the seed of the label noise.", allowed=Range(0))
    deterministic: bool = setting(
        False,
        "Use deterministic algorithms only, also on a GPU (slower there). A run on a CPU is always deterministic.",
    )
    resume: str = setting(
        "auto",
        "auto: resume from the latest valid checkpoint of the folder; never: start from scratch; or the PATH of a "
        "checkpoint.",
    )
    keep_every: int = setting(
        0, "Also keep the checkpoint of every k-th epoch; 0: keep the last two and the best only.", allowed=Range(0)
    )


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Section):
    """Schedule and optimiser."""

    epochs: int = setting(450, "Number of epochs, including the warm-up.", "CPC, sec. 5.1", Range(1))
    warmup_epochs: int = setting(
        10, "Epochs of cross entropy on all given labels before the first cleaning.", "CPC, sec. 5.1", Range(0)
    )
    warmup_penalty: Literal["auto", "always", "never"] = setting(
        "auto",
        "Confidence penalty in the warm-up; auto: with asymmetric noise and label files, not with sym.",
        DIVIDEMIX,
    )
    batch_size: int = setting(
        128, "Labelled samples per step, and as many unlabelled samples.", "CPC, sec. 5.1", Range(2)
    )
    pool_batches: int = setting(
        0,
        "Train each epoch on a pool of this many batches, sampled again for every epoch; 0: on all samples. The paper "
        "uses 1000 on Clothing1M and WebVision.",
        "CPC, sec. A.2",
        Range(0),
    )
    pool_balanced: bool = setting(
        True,
        "The pool contains equally many samples per given label, or all samples of a label that has fewer.",
        DIVIDEMIX,
    )
    lr: float = setting(0.02, "Learning rate.", "CPC, sec. 5.1", Range(0, low_open=True))
    schedule: Literal["step", "one_cycle", "cosine"] = setting(
        "step",
        "Learning rate. step: one drop at lr_drop_epoch. one_cycle: from lr / 25 up to lr at 30 % of the epochs, then "
        "down to nearly 0, along half cosines. cosine: from lr down to 0 along half a cosine.",
        DIVIDEMIX,
    )
    warmup_steps: int = setting(
        0,
        "schedule=step and cosine: steps of each network in which the learning rate rises linearly to lr. A step "
        "counts as its share of an epoch on all samples (or of the pool), so that epochs of any length fit.",
        "Goyal et al. 2017",
        Range(0),
    )
    lr_drop_epoch: int = setting(
        225,
        "schedule=step: epoch from which the learning rate is divided by lr_drop_factor.",
        "CPC, sec. 5.1",
        Range(0),
    )
    lr_drop_factor: float = setting(10.0, "schedule=step: divisor of the learning rate.", DIVIDEMIX, Range(1))
    momentum: float = setting(0.9, "Momentum of SGD.", DIVIDEMIX, Range(0, 1, high_open=True))
    weight_decay: float = setting(
        5e-4, "Weight decay: added to the gradient by SGD, decoupled in AdamW.", DIVIDEMIX, Range(0)
    )
    score_batch_size: int = setting(
        0,
        "Batch size of scoring and evaluation (no gradients). 0: 2048 for digits and CIFAR on one GPU of 16 GB or "
        "more, otherwise 512.",
        allowed=Range(0),
    )


@dataclass(frozen=True, kw_only=True)
class OptimConfig(Section):
    """Optimiser, its parameter groups and its implementation."""

    name: Literal["sgd", "adamw"] = setting(
        "sgd",
        "Optimiser of networks and prototypes. sgd: with train.momentum. adamw: for fine-tuning; needs a train.lr of "
        "about 1e-5 to 1e-3.",
        DIVIDEMIX,
    )
    backend: Literal["auto", "torch", "apex"] = setting(
        "auto",
        "SGD of the networks. torch: the fused form of PyTorch; apex: FusedSGD of NVIDIA apex, on a GPU; auto: torch "
        "(apex has not been measured to be faster).",
    )
    backbone_lr_scale: float = setting(
        1.0,
        "Learning rate of the backbone, as a multiple of train.lr; the classifier has train.lr.",
        OURS,
        Range(0, low_open=True),
    )
    layer_decay: float = setting(
        1.0,
        "Networks of timm: factor of the learning rate from one group of layers to the group below; 1: all groups have "
        "the same.",
        "BEiT (Bao et al. 2022), timm",
        Range(0, 1, low_open=True),
    )
    decay_norms: bool = setting(
        True,
        "false: no weight decay on biases and norms of the network, and on the parameters that a network of timm names "
        "(position embeddings).",
        "timm",
    )
    clip_norm: float = setting(
        0.0, "Largest norm of all gradients of a network together; 0: no clipping.", "Pascanu et al. 2013", Range(0)
    )


@dataclass(frozen=True, kw_only=True)
class EmaConfig(Section):
    """Average of the weights."""

    decay: float = setting(
        0.0,
        "Exponential moving average of the weights of each network, updated after each step; such as 0.999. The "
        "average scores, guesses, is evaluated and exported. 0: none.",
        "Mean Teacher (Tarvainen and Valpola 2017)",
        Range(0, 1, high_open=True),
    )


@dataclass(frozen=True, kw_only=True)
class ParallelConfig(Section):
    """Several processes, started by torchrun. With one process only mode has an effect."""

    mode: Literal["data", "co"] = setting(
        "data",
        "data: all ranks train network 1, then network 2. co: half of the ranks train each network at the same time. "
        "co is another algorithm: network 2 guesses with network 1 as it was at the start of the epoch.",
    )
    batch_size: Literal["global", "per_rank"] = setting(
        "global",
        "Meaning of train.batch_size. global: the samples of all ranks that train a network (mode=co: half of the "
        "ranks), so that results do not depend on their number; per_rank: the samples of each rank.",
    )
    lr_scaling: Literal["none", "linear"] = setting(
        "none", "linear: multiply train.lr by the number of ranks that train a network; needs batch_size=per_rank."
    )
    sync_batchnorm: bool = setting(
        True,
        "BatchNorm over the global batch; false: over the share of each rank, which is faster and gives other results.",
    )
    mixup: Literal["global", "per_rank"] = setting(
        "global",
        "MixUp partners from the global batch; per_rank: from the own share, with less traffic and other results.",
    )
    mixture: Literal["gathered", "summed"] = setting(
        "gathered",
        "Fit of the mixtures. gathered: each rank fits all losses; summed: each rank fits its share and all-reduces "
        "the sums. Both give the same up to the order of sums; summed needs less time and memory.",
    )
    timeout: float = setting(
        600.0, "Seconds without an answer from a rank after which the run ends and names the rank.", allowed=Range(1)
    )


@dataclass(frozen=True, kw_only=True)
class LogConfig(Section):
    """Figures and loggers during training; they do not change what is computed."""

    figures_every: int = setting(
        10,
        "Draw losses, AUC curves, confusion and the 20 worst labels for TensorBoard after the first, every k-th and "
        "the last cleaning; skipped while drawing has taken more than 2 % of the time. 0: never.",
        allowed=Range(0),
    )
    wandb: str = setting("", "Project of Weights & Biases that also gets the run (pip install 'fastcpc[wandb]').")
