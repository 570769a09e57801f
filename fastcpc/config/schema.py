"""Every setting of a run: name, type, default, range, meaning, source.

A section is a frozen dataclass. ``setting`` attaches what the checks and ``--help`` read: the allowed range, the
meaning with its unit, and the source of the default. A section checks its own settings when it is created.
validation.py checks the rules between settings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fastcpc.config.constraints import Range, section_problems
from fastcpc.config.names import BACKBONES, CLEANER_KINDS, DATASETS
from fastcpc.errors import InputError

DIVIDEMIX = "DivideMix"
AUGDMIX = "AugDMix (Nishi et al. 2021)"
CPC = "CPC, arXiv version"
OURS = "fastcpc"


def setting(
    default: Any,
    meaning: str,
    source: str = OURS,
    allowed: Range | None = None,
    choices: Mapping[str, Any] | None = None,
) -> Any:
    """A dataclass field with its meaning for ``--help``, the source of its default, and its range.

    choices: the texts that are allowed, where a registry may add some; else the type has them, as a Literal.
    """
    about = {"meaning": meaning, "source": source, "allowed": allowed, "choices": choices}
    return field(default=default, metadata=about)


class Section:
    """Base of all sections. Raises InputError for values of the wrong type or out of range, one line per setting."""

    def __post_init__(self) -> None:
        name = type(self).__name__.removesuffix("Config").lower()
        problems = section_problems(f"{name}." if name else "", self)
        if problems:
            raise InputError("\n".join(problems))


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
class DataConfig(Section):
    """Images and labels."""

    name: str = setting(
        "digits",
        "Data set. digits: included in scikit-learn; imagefolder: your own images, one folder per class, or data.list.",
        choices=DATASETS,
    )
    root: str = setting("", "Folder of the data set, or its parent; digits needs none.")
    subset: int = setting(0, "Train on the first N samples after a seeded shuffle; 0: all.", allowed=Range(0))
    feed: Literal["auto", "memory", "dali", "torch"] = setting(
        "auto",
        "Loader. memory: all images on the device as uint8 (digits, CIFAR). For image files, dali: NVIDIA DALI; torch: "
        "Pillow in threads. auto: memory for digits and CIFAR, else dali where it is installed, else torch.",
    )
    workers: int = setting(0, "Threads that decode image files; 0: one per core, at most 16.", allowed=Range(0))
    list: str = setting(
        "",
        "imagefolder: table (csv, tsv, parquet) with the columns path, label and optionally split, trusted_label; or "
        "txt with lines 'path label'. Paths are relative to data.root. Empty: the folders are the classes.",
    )
    classes: str = setting(
        "", "imagefolder: text file with one class per line, 'name' or 'id name', in order. Empty: sorted by name."
    )
    holdout: float = setting(
        0.1,
        "imagefolder without a val or test part: share of each class that is held out to measure the accuracy.",
        allowed=Range(0, 0.5, low_open=True),
    )
    num_classes: int = setting(50, "webvision: number of classes, the first K.", DIVIDEMIX, Range(2, 1000))
    flickr: bool = setting(False, "webvision: also train on the Flickr list, after the Google list.", DIVIDEMIX)
    ilsvrc12: str = setting("", "webvision: folder of the validation images of ILSVRC12, a second test set.")
    index: str = setting(
        "", "Image files: index that fastcpc-prepare wrote. Empty: ROOT/.fastcpc-index/NAME.parquet if it exists."
    )
    cache: str = setting(
        "auto",
        "Image files: cache that fastcpc-prepare --cache wrote. auto: the cache beside the index, if it fits "
        "data.resize; off: no cache; or its PATH.",
    )
    ram_cache: float = setting(
        0.0,
        "Image files: keep the bytes of files in memory after the first read, up to this many GB.",
        allowed=Range(0),
    )
    hw_decoder_load: float = setting(
        0.65,
        "Image files, dali on a GPU: share of the JPEG files that the hardware decoder decodes.",
        "NVIDIA DALI",
        Range(0, 1),
    )
    max_bad: float = setting(
        0.001,
        "Image files: largest allowed share of broken training images; test sets must have none.",
        allowed=Range(0, 1),
    )
    resize: int = setting(256, "Image files: length of the shorter side before the crop, pixels.", DIVIDEMIX, Range(8))
    crop: int = setting(224, "Image files: side of the square crop that the networks get, pixels.", DIVIDEMIX, Range(8))
    random_resized_crop: bool = setting(
        False, "Image files: weak views use a random resized crop instead of a random square."
    )
    flip: bool = setting(True, "Image files: flip weak views horizontally with probability 1/2.", DIVIDEMIX)


@dataclass(frozen=True, kw_only=True)
class NoiseConfig(Section):
    """Label noise that is added to true labels."""

    kind: Literal["none", "sym", "asym", "asym_superclass", "asym_block5", "asym_next", "asym_pairs", "file"] = setting(
        "none",
        "sym: a random class; asym: a similar class (CIFAR-10, digits); asym_superclass, asym_block5: the two "
        "definitions of asym on CIFAR-100; asym_next: the next class, after the last the first; asym_pairs: "
        "noise.pairs; file: noise.file. All except none use the labels of the data set as true labels.",
        DIVIDEMIX,
    )
    rate: float = setting(
        0.0,
        "Share of samples whose label is drawn. sym may draw the true label again.",
        DIVIDEMIX,
        Range(0, 1),
    )
    pairs: str = setting(
        "",
        "noise.kind=asym_pairs: pairs 'true class -> given class', such as 'shirt -> longsleeve, skirt -> dress', with "
        "the class names of the data set. Other classes keep their labels.",
    )
    file: str = setting(
        "",
        "noise.kind=file: label file (csv, tsv, txt, parquet, json, npy, npz, or pt of CIFAR-N), one label per "
        "training sample.",
    )
    key: str = setting(
        "", "noise.kind=file: name of the labels in a file that contains several (CIFAR-N: worse_label, ...)."
    )
    seed: int = setting(-1, "Seed of the noise; -1: run.seed.", allowed=Range(-1))


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Section):
    """The two networks: one architecture, two seeds."""

    name: str = setting(
        "preact_resnet18",
        f"{', '.join(BACKBONES)}, or timm/NAME for any model of timm.",
        DIVIDEMIX,
    )
    weights: str = setting(
        "",
        "Initial weights of the backbone: empty (random), the path of a file (.safetensors), or the name of weights of "
        "torchvision or timm.",
    )
    width: int = setting(
        64,
        "Channels of the first stage of preact_resnet18, and of the second convolution of digits_cnn and small_cnn.",
        DIVIDEMIX,
        Range(16),
    )


@dataclass(frozen=True, kw_only=True)
class AugmentConfig(Section):
    """Weak and strong views of an image."""

    strong: Literal["autoaugment", "randaugment", "geometric"] = setting(
        "autoaugment",
        "Operations on top of the weak view. autoaugment: the CIFAR-10 policy, for image files the ImageNet policy; "
        "randaugment; geometric: the shears, translations and rotations of RandAugment.",
        AUGDMIX,
    )
    randaugment_ops: int = setting(2, "randaugment and geometric: operations per view.", allowed=Range(1))
    randaugment_magnitude: int = setting(9, "randaugment and geometric: strength.", allowed=Range(0, 30))
    train: Literal["weak", "strong"] = setting("strong", "View of the training loss; weak: plain DivideMix.", AUGDMIX)
    warmup: Literal["weak", "strong"] = setting("weak", "View of the warm-up; strong: SAW of AugDMix.", AUGDMIX)


@dataclass(frozen=True, kw_only=True)
class CleanerConfig(Section):
    """Cleaner: which labels are predicted clean."""

    kind: str = setting(
        "cpc_awr",
        "none: cross entropy on all given labels; gmm_*: mixture on losses; cpc_*: class prototypes. agn: one mixture "
        "for all classes; awr: one per class.",
        CPC,
        choices=CLEANER_KINDS,
    )
    tau: float = setting(
        0.5,
        "A sample is predicted clean when its clean probability exceeds this.",
        "CPC, Tab. 4",
        Range(0, 1, low_open=True, high_open=True),
    )
    guard: Literal["none", "auto"] = setting(
        "none",
        "auto: a label that the network itself predicts is clean, whatever the cleaner finds. It prevents false "
        "suspects where few labels are wrong.",
    )
    alpha: float = setting(
        1.0, "Weight of the term L_P (pseudo labels) of the prototype loss.", "CPC, eq. 5 and Tab. 4", Range(0)
    )
    warmup: float = setting(
        0.05,
        "cpc_*: share of all epochs, after train.warmup_epochs, in which the mixture defines the partition.",
        "CPC, sec. 5.1",
        Range(0, 1),
    )
    scored: Literal["all", "pool"] = setting(
        "all",
        "Samples that an epoch scores and partitions. pool: only those of train.pool_batches, as DivideMix does on "
        "Clothing1M. The final cleaning always covers all samples.",
    )
    loss_history: int = setting(
        1,
        "Fit mixtures to the mean of the normalised losses of the last k epochs; DivideMix: 5 at sym 90.",
        DIVIDEMIX,
        Range(1),
    )


@dataclass(frozen=True, kw_only=True)
class CpcConfig(Section):
    """Projector and prototypes."""

    embedding_dim: int = setting(
        128, "Size d of the embedding; smaller than the feature size of the backbone.", allowed=Range(1)
    )
    projector: Literal["linear", "mlp"] = setting("linear", "Layer from features to the embedding.")
    normalise: bool = setting(
        False, "Use the cosine instead of the dot product inside the sigmoid, with a learned scale and bias."
    )
    passes: int = setting(
        0,
        "Passes over the stored features per epoch; 0: one pass if it has 350 steps or more, else enough passes for "
        "about 700 steps.",
        allowed=Range(0),
    )
    score: Literal["after_update", "before_update"] = setting(
        "after_update",
        "Prototypes that define the partition: after (sec. 4.1) or before (Alg. 1) the update of this epoch.",
        CPC,
    )
    temperature: float = setting(
        0.1, "cpc_only: temperature of the prototypical contrastive loss.", "MoPro", Range(0, low_open=True)
    )


@dataclass(frozen=True, kw_only=True)
class SemisupConfig(Section):
    """The semi-supervised stage."""

    lambda_u: float = setting(
        25.0, "Weight of the unlabelled loss; the papers use 0, 25, 50 or 150.", DIVIDEMIX, Range(0)
    )
    rampup_epochs: int = setting(16, "Epochs over which lambda_u rises from 0.", DIVIDEMIX, Range(1))
    temperature: float = setting(0.5, "Sharpening temperature T of the targets.", DIVIDEMIX, Range(0, low_open=True))
    mixup_alpha: float = setting(
        4.0,
        "Parameter a of the Beta(a, a) distribution of MixUp; 4 on CIFAR, 0.5 on web data.",
        DIVIDEMIX,
        Range(0, low_open=True),
    )
    guess_batchnorm: Literal["per_view", "merged", "running"] = setting(
        "per_view",
        "BatchNorm statistics of the trained network when it guesses labels. per_view: of each view and half of the "
        "batch; merged: of all four together; running: the running statistics, not updated. The last two are faster "
        "and give other results.",
        DIVIDEMIX,
    )
    batches_per_epoch: int = setting(
        0, "Steps per epoch and network; 0: one pass over the labelled set.", DIVIDEMIX, Range(0)
    )
    labelled_half_only: bool = setting(
        False, "Pass only the labelled half of the mixed batch; for web data, where lambda_u is 0.", DIVIDEMIX
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
    lr: float = setting(0.02, "Learning rate of SGD.", "CPC, sec. 5.1", Range(0, low_open=True))
    schedule: Literal["step", "one_cycle"] = setting(
        "step",
        "Learning rate. step: one drop at lr_drop_epoch. one_cycle: from lr / 25 up to lr at 30 % of the epochs, then "
        "down to nearly 0, along half cosines.",
        DIVIDEMIX,
    )
    lr_drop_epoch: int = setting(
        225,
        "schedule=step: epoch from which the learning rate is divided by lr_drop_factor.",
        "CPC, sec. 5.1",
        Range(0),
    )
    lr_drop_factor: float = setting(10.0, "schedule=step: divisor of the learning rate.", DIVIDEMIX, Range(1))
    momentum: float = setting(0.9, "Momentum of SGD.", DIVIDEMIX, Range(0, 1, high_open=True))
    weight_decay: float = setting(5e-4, "Weight decay of SGD.", DIVIDEMIX, Range(0))
    score_batch_size: int = setting(512, "Batch size of scoring and evaluation (no gradients).", allowed=Range(1))


@dataclass(frozen=True, kw_only=True)
class OptimConfig(Section):
    """Implementation of the optimiser; the update is the same."""

    backend: Literal["auto", "torch", "apex"] = setting(
        "auto",
        "SGD of the networks. torch: the fused form of PyTorch; apex: FusedSGD of NVIDIA apex, on a GPU; auto: torch "
        "(apex has not been measured to be faster).",
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
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    log: LogConfig = field(default_factory=LogConfig)
    device: Literal["auto", "cpu", "cuda"] = setting("auto", "Device; auto: cuda where available, else cpu.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = setting(
        "auto",
        "Type of activations. auto: bf16 where the device computes with it (GPUs of compute capability 8.0 and later, "
        "CPUs with AMX or AVX512-BF16); otherwise fp16 on a GPU and fp32 on a CPU.",
    )
    tf32: bool = setting(False, "On a GPU, use TF32 for float32 products: faster, with 10 instead of 23 mantissa bits.")
    compile: Literal["false", "default", "max-autotune"] = setting(
        "false",
        "Use torch.compile for the training step (from images to losses) and for inference; with several processes, "
        "for the networks and for inference. max-autotune: slower to compile, with CUDA graphs on a GPU.",
    )
