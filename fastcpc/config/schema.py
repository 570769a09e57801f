"""Every setting of a run: name, type, default, range, meaning, source. No torch, nothing of the rest but the errors.

A section is a frozen dataclass. ``setting`` attaches what checks and ``--help`` read: the allowed range, one line of
meaning with its unit, and where the default comes from. A section checks each of its own settings when it is made; what
ties several settings together is in checks.py.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from fastcpc.config.constraints import Range, section_problems
from fastcpc.config.names import CLEANER_KINDS
from fastcpc.errors import InputError

DIVIDEMIX = "DivideMix"
AUGDMIX = "AugDMix (Nishi et al. 2021)"
CPC = "CPC, arXiv version"
OURS = "fastcpc"


def setting(default: Any, meaning: str, source: str = OURS, allowed: Range | None = None, names: Any = None) -> Any:
    """A dataclass field that carries its line of help, the source of its default and its range.

    names: the names that the setting takes, where a registry can add to them.
    """
    return field(default=default, metadata={"meaning": meaning, "source": source, "allowed": allowed, "names": names})


class Section:
    """Raises InputError when made with settings of the wrong type or out of range: a line for each, with its key."""

    def __post_init__(self) -> None:
        name = type(self).__name__.removesuffix("Config").lower()
        faults = section_problems(f"{name}." if name else "", self)
        if faults:
            raise InputError("\n".join(faults))


@dataclass(frozen=True, kw_only=True)
class RunConfig(Section):
    """The run itself."""

    name: str = setting("run", "Name of the run; the run's folder is runs/NAME unless run.dir is set.")
    dir: str = setting("", "Folder that the run writes; empty means runs/NAME.")
    seed: int = setting(1, "Seed of everything random; the label noise has its own, noise.seed.", allowed=Range(0))
    deterministic: bool = setting(
        False, "Only deterministic algorithms, also on a GPU (slower there). A CPU run always is."
    )
    resume: str = setting(
        "auto", "auto: go on where the folder's last whole checkpoint stands; never; or a checkpoint's PATH."
    )
    keep_every: int = setting(
        0, "Also keep the checkpoint of every k-th epoch; 0 keeps the last two and the best only.", allowed=Range(0)
    )


@dataclass(frozen=True, kw_only=True)
class DataConfig(Section):
    """Images and labels."""

    name: Literal["digits", "cifar10", "cifar100", "clothing1m", "webvision", "imagefolder"] = setting(
        "digits", "Data set. digits comes with scikit-learn; imagefolder: one folder a class, or data.list."
    )
    root: str = setting("", "Folder of the data set's files, or its parent; not needed for digits.")
    subset: int = setting(0, "Train on the first N samples after a seeded shuffle; 0 = all.", allowed=Range(0))
    feed: Literal["auto", "memory", "dali", "torch"] = setting(
        "auto",
        "Where batches come from; memory: all images on the device as uint8 (digits, CIFAR); of image files, dali: "
        "NVIDIA DALI, torch: Pillow in threads; auto: memory, or dali where it is installed.",
    )
    workers: int = setting(0, "Threads that decode image files; 0: one a core, 16 at most.", allowed=Range(0))
    list: str = setting(
        "",
        "imagefolder: csv, tsv or parquet with path, label (split, trusted_label), or txt lines 'path label'; paths "
        "are relative to data.root. Empty: the folders are the classes.",
    )
    classes: str = setting(
        "", "imagefolder: text file of the classes in order, a line 'name' or 'id name' each. Empty: sorted by name."
    )
    holdout: float = setting(
        0.1,
        "imagefolder without val and test part: share of each class that is kept out of training for the accuracy.",
        allowed=Range(0, 0.5, low_open=True),
    )
    num_classes: int = setting(50, "webvision: the first K classes.", DIVIDEMIX, Range(2, 1000))
    flickr: bool = setting(False, "webvision: train on the Flickr list too, after Google's.", DIVIDEMIX)
    ilsvrc12: str = setting("", "webvision: folder of ILSVRC12's validation images, a second test set.")
    index: str = setting(
        "", "Photos: what fastcpc-prepare wrote. Empty: ROOT/.fastcpc-index/NAME.parquet where there is one."
    )
    cache: str = setting(
        "auto",
        "Photos: what fastcpc-prepare --cache wrote; auto: the one beside the index that fits data.resize, if any; "
        "off; or its PATH.",
    )
    ram_cache: float = setting(
        0.0, "Photos: keep the bytes of files in memory once they were read, up to this many GB.", allowed=Range(0)
    )
    hw_decoder_load: float = setting(
        0.65, "Photos, dali on a GPU: share of JPEGs that its hardware decoder takes.", "NVIDIA DALI", Range(0, 1)
    )
    max_bad: float = setting(
        0.001, "Photos: share of training images that may be broken; test sets must be whole.", allowed=Range(0, 1)
    )
    resize: int = setting(256, "Photos: length of the shorter side before the crop, pixels.", DIVIDEMIX, Range(8))
    crop: int = setting(224, "Photos: side of the square that the networks see, pixels.", DIVIDEMIX, Range(8))
    random_resized_crop: bool = setting(
        False, "Photos: weak views crop a box of random area and shape, instead of a random square."
    )
    flip: bool = setting(True, "Photos: weak views are mirrored left to right with probability 1/2.", DIVIDEMIX)


@dataclass(frozen=True, kw_only=True)
class NoiseConfig(Section):
    """Label noise put on trusted labels."""

    kind: Literal["none", "sym", "asym", "asym_superclass", "asym_block5", "asym_next", "asym_pairs", "file"] = setting(
        "none",
        "sym, asym: drawn here; asym_superclass, asym_block5: CIFAR-100's two readings of asym; asym_next: the next "
        "class, the last one's next is the first; asym_pairs: noise.pairs; file: noise.file. Any but none takes the "
        "data's labels as trusted.",
        DIVIDEMIX,
    )
    rate: float = setting(
        0.0,
        "Share of samples that are drawn. sym may draw the true label again.",
        DIVIDEMIX,
        Range(0, 1),
    )
    pairs: str = setting(
        "",
        "For noise.kind=asym_pairs, which classes are mistaken for which: 'shirt -> longsleeve, skirt -> dress', names "
        "as the data set has them; the other classes keep their labels.",
    )
    file: str = setting(
        "", "Label file for noise.kind=file: json, npy, npz, csv or pt (CIFAR-N), one label a training sample."
    )
    key: str = setting("", "Name of the labels inside noise.file, where it holds several (CIFAR-N: worse_label, ...).")
    seed: int = setting(-1, "Seed of the noise; -1 takes run.seed.", allowed=Range(-1))


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Section):
    """The two networks: one architecture, two seeds."""

    name: str = setting(
        "preact_resnet18",
        "preact_resnet18, digits_cnn, small_cnn, resnet50, or timm/NAME for any timm model.",
        DIVIDEMIX,
    )
    weights: str = setting(
        "", "Start of the backbone: empty (random), a .safetensors path, or a weights name of the library."
    )
    width: int = setting(
        64,
        "Channels of preact_resnet18's first stage, of digits_cnn's and small_cnn's second convolution.",
        DIVIDEMIX,
        Range(16),
    )


@dataclass(frozen=True, kw_only=True)
class AugmentConfig(Section):
    """Views of an image."""

    strong: Literal["autoaugment", "randaugment", "geometric"] = setting(
        "autoaugment",
        "On top of the weak view: AutoAugment (CIFAR-10's; ImageNet's for photos); RandAugment; geometric: its shears, "
        "shifts, turns.",
        AUGDMIX,
    )
    randaugment_ops: int = setting(2, "randaugment and geometric: operations a view.", allowed=Range(1))
    randaugment_magnitude: int = setting(9, "randaugment and geometric: strength.", allowed=Range(0, 30))
    train: Literal["weak", "strong"] = setting("strong", "View that is trained on; weak is plain DivideMix.", AUGDMIX)
    warmup: Literal["weak", "strong"] = setting("weak", "View of the warm-up; strong is AugDMix's SAW.", AUGDMIX)


@dataclass(frozen=True, kw_only=True)
class CleanerConfig(Section):
    """Which labels are clean."""

    kind: str = setting(
        "cpc_awr",
        "none: plain cross entropy; gmm_*: mixture on losses; cpc_*: prototypes; agn: one mixture, awr: one a class.",
        CPC,
        names=CLEANER_KINDS,
    )
    tau: float = setting(
        0.5,
        "A sample is clean when its clean probability exceeds this.",
        "CPC, Tab. 4",
        Range(0, 1, low_open=True, high_open=True),
    )
    alpha: float = setting(
        1.0, "Weight of the pseudo-labelled term L_P of the prototype loss.", "CPC, eq. 5 and Tab. 4", Range(0)
    )
    warmup: float = setting(
        0.05,
        "Share of all epochs after the networks' warm-up in which the GMM still divides the data for cpc_*.",
        "CPC, sec. 5.1",
        Range(0, 1),
    )
    scored: Literal["all", "pool"] = setting(
        "all",
        "Samples that an epoch scores and divides; pool: those of train.pool_batches alone, as DivideMix does on "
        "Clothing1M. The final cleaning is of all samples.",
    )
    loss_history: int = setting(
        1, "Mixtures see the mean of the last k epochs' normalised losses; 5 at sym 90.", DIVIDEMIX, Range(1)
    )


@dataclass(frozen=True, kw_only=True)
class CpcConfig(Section):
    """Projector and prototypes."""

    embedding_dim: int = setting(128, "Size d of the embedding, below the backbone's feature size.", allowed=Range(1))
    projector: Literal["linear", "mlp"] = setting("linear", "Map from features to the embedding.")
    normalise: bool = setting(False, "Cosine instead of dot product inside the sigmoid, with a learnt scale and bias.")
    passes: int = setting(
        0,
        "Passes over the kept features an epoch; 0: 1 from 350 steps a pass on, else about 700 steps.",
        allowed=Range(0),
    )
    score: Literal["after_update", "before_update"] = setting(
        "after_update", "Scores that divide the data: after (sec. 4.1) or before (Alg. 1) this epoch's update.", CPC
    )
    temperature: float = setting(
        0.1, "cpc_only: temperature of the prototypical contrastive loss.", "MoPro", Range(0, low_open=True)
    )


@dataclass(frozen=True, kw_only=True)
class SemisupConfig(Section):
    """The semi-supervised stage."""

    lambda_u: float = setting(
        25.0, "Weight of the unlabelled loss; 0, 25, 50 or 150 by data set and noise.", DIVIDEMIX, Range(0)
    )
    rampup_epochs: int = setting(16, "Epochs over which lambda_u rises from 0.", DIVIDEMIX, Range(1))
    temperature: float = setting(
        0.5, "Sharpening temperature T of guessed targets.", DIVIDEMIX, Range(0, low_open=True)
    )
    mixup_alpha: float = setting(
        4.0, "Beta(a, a) of MixUp; 4 on CIFAR, 0.5 on web data.", DIVIDEMIX, Range(0, low_open=True)
    )
    guess_batchnorm: Literal["per_view", "merged", "running"] = setting(
        "per_view",
        "BatchNorm of the trained network where it guesses labels; per_view: each view and half by its own statistics; "
        "merged: all four by their common ones; running: by the running ones, which do not move. The last two are "
        "faster and give another result.",
        DIVIDEMIX,
    )
    batches_per_epoch: int = setting(
        0, "Steps an epoch and network; 0: one pass over the labelled set.", DIVIDEMIX, Range(0)
    )
    labelled_half_only: bool = setting(
        False, "Pass only the labelled half of the mixed batch; for web data, where lambda_u is 0.", DIVIDEMIX
    )


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Section):
    """Schedule and optimiser."""

    epochs: int = setting(450, "Epochs in all, warm-up included.", "CPC, sec. 5.1", Range(1))
    warmup_epochs: int = setting(
        10, "Epochs of plain cross entropy before the first cleaning.", "CPC, sec. 5.1", Range(0)
    )
    warmup_penalty: Literal["auto", "always", "never"] = setting(
        "auto", "Confidence penalty in the warm-up; auto: for asymmetric noise and label files, not for sym.", DIVIDEMIX
    )
    batch_size: int = setting(128, "Labelled samples a step (and as many unlabelled).", "CPC, sec. 5.1", Range(2))
    pool_batches: int = setting(
        0,
        "An epoch trains on a pool of this many batches of samples, drawn anew each time; 0: on all. 1000 on "
        "Clothing1M and WebVision.",
        "CPC, sec. A.2",
        Range(0),
    )
    pool_balanced: bool = setting(
        True, "The pool holds equally many samples of each given label, or all where they are fewer.", DIVIDEMIX
    )
    lr: float = setting(0.02, "Learning rate of SGD.", "CPC, sec. 5.1", Range(0, low_open=True))
    schedule: Literal["step", "one_cycle"] = setting(
        "step",
        "Learning rate over the run; step: drops once, at lr_drop_epoch; one_cycle: from lr / 25 up to lr at 30 % of "
        "the epochs, then down to nearly 0, along half cosines.",
        DIVIDEMIX,
    )
    lr_drop_epoch: int = setting(
        225,
        "Epoch from which the learning rate is divided by lr_drop_factor (schedule=step).",
        "CPC, sec. 5.1",
        Range(0),
    )
    lr_drop_factor: float = setting(10.0, "What the learning rate is divided by.", DIVIDEMIX, Range(1))
    momentum: float = setting(0.9, "Momentum of SGD.", DIVIDEMIX, Range(0, 1, high_open=True))
    weight_decay: float = setting(5e-4, "Weight decay of SGD.", DIVIDEMIX, Range(0))
    score_batch_size: int = setting(512, "Samples a batch when scoring and evaluating, no gradients.", allowed=Range(1))


@dataclass(frozen=True, kw_only=True)
class OptimConfig(Section):
    """Who computes the optimiser's update; the update is the same."""

    backend: Literal["auto", "torch", "apex"] = setting(
        "auto",
        "SGD of the networks; torch: its fused form; apex: NVIDIA's FusedSGD, on a GPU, where that package is built; "
        "auto: torch, as nothing measured says that apex is faster.",
    )


@dataclass(frozen=True, kw_only=True)
class ParallelConfig(Section):
    """Several processes, started by torchrun; with one, none of this matters but mode."""

    mode: Literal["data", "co"] = setting(
        "data",
        "data: all ranks train network 1, then network 2. co: both at once, half the ranks each, exchanged at the end "
        "of the epoch; another algorithm: network 2 guesses with network 1 as it was when the epoch began.",
    )
    batch_size: Literal["global", "per_rank"] = setting(
        "global",
        "What train.batch_size counts; global: all ranks that train a network together (mode=co: half of all), so that "
        "results do not depend on their number; per_rank: each, so that a step has batch_size times those ranks.",
    )
    lr_scaling: Literal["none", "linear"] = setting(
        "none", "linear: with batch_size=per_rank, train.lr is multiplied by the ranks that train a network."
    )
    sync_batchnorm: bool = setting(
        True, "BatchNorm over the global batch; false: over each rank's share, faster, and another result."
    )
    mixup: Literal["global", "per_rank"] = setting(
        "global", "MixUp's partners come from the global batch, or (less traffic, another result) from the own share."
    )
    mixture: Literal["gathered", "summed"] = setting(
        "gathered",
        "The fit of mixtures; gathered: each rank fits all losses; summed: its share of them, and sums travel. The "
        "same up to the order of sums; summed takes a share of the time and memory.",
    )
    timeout: float = setting(
        600.0, "Seconds without an answer from a rank after which the run ends and names it.", allowed=Range(1)
    )


@dataclass(frozen=True, kw_only=True)
class LogConfig(Section):
    """What a run shows of itself while it trains; none of it changes what is computed."""

    figures_every: int = setting(
        10,
        "Put losses, AUC curves, confusion and the 20 worst labels into TensorBoard after the first cleaning, every "
        "k-th one, and at the end; put off while they have taken over 2 % of the time. 0: never.",
        allowed=Range(0),
    )
    wandb: str = setting("", "Project of Weights & Biases that gets the run too (pip install 'fastcpc[wandb]').")


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
    device: Literal["auto", "cpu", "cuda"] = setting("auto", "Where to compute; auto: cuda where there is one.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = setting(
        "auto",
        "Type of activations; auto: bf16 where the device has arithmetic for it (GPUs of compute capability 8.0 and "
        "later, CPUs with AMX or AVX512-BF16), else fp16 on a GPU and fp32 on a CPU.",
    )
    tf32: bool = setting(False, "On a GPU, TF32 in float32 products: faster, with 10 bits of mantissa instead of 23.")
    compile: Literal["false", "default", "max-autotune"] = setting(
        "false",
        "torch.compile of the training step, from images to losses, and of inference; max-autotune: slower to compile, "
        "with CUDA graphs on a GPU. With several processes, of the networks and of inference.",
    )
