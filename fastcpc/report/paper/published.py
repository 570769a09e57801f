"""Accuracies of the CPC paper (arXiv version), shown where a run repeats one of its cells."""

from dataclasses import dataclass
from typing import Any

from fastcpc.config.schema import Config
from fastcpc.engine.checkpoint.config_diff import flat_settings


@dataclass(frozen=True)
class PaperCell:
    """Top-1 accuracy in percent of one data set, noise and cleaner; spread: its standard deviation, if given."""

    data: str
    noise: str
    rate: float
    cleaner: str
    top1: float
    spread: float | None
    source: str


_RATES = (0.2, 0.5, 0.8, 0.9)


def _row(
    data: str, cleaner: str, values: tuple[float, ...], source: str, spreads: tuple[float | None, ...] = (None,) * 4
) -> list[PaperCell]:
    return [
        PaperCell(data, "sym", rate, cleaner, top1, spread, source)
        for rate, top1, spread in zip(_RATES, values, spreads, strict=True)
    ]


_BASELINE = "CPC, Tab. 2, AugDMix"
_OURS = "CPC, Tab. 2, Ours"
CELLS = (
    *_row("cifar10", "gmm_agn", (96.3, 95.6, 93.6, 91.9), _BASELINE),
    *_row("cifar100", "gmm_agn", (79.5, 77.2, 66.4, 41.2), _BASELINE),
    *_row("cifar10", "cpc_awr", (96.50, 95.64, 94.78, 92.55), _OURS, (0.10, 0.01, 0.01, 0.58)),
    *_row("cifar100", "cpc_awr", (80.22, 79.31, 69.56, 54.60), _OURS, (0.21, 0.13, 0.34, 0.24)),
    PaperCell("cifar10", "asym", 0.4, "gmm_agn", 94.6, None, _BASELINE),
    PaperCell("cifar10", "asym", 0.4, "cpc_agn", 94.73, 0.04, _OURS),
    PaperCell("cifar10", "asym", 0.4, "gmm_awr", 94.18, None, "CPC, Tab. 3"),
    PaperCell("cifar10", "asym", 0.4, "cpc_awr", 94.29, None, "CPC, Tab. 3"),
    PaperCell("cifar10", "asym", 0.4, "cpc_only", 93.92, None, "CPC, Tab. 5"),
    PaperCell("cifar100", "sym", 0.9, "gmm_awr", 45.6, None, "CPC, Tab. 3"),
    PaperCell("cifar100", "sym", 0.9, "cpc_agn", 48.88, None, "CPC, Tab. 3"),
    PaperCell("cifar100", "sym", 0.9, "cpc_only", 42.9, None, "CPC, Tab. 5"),
    PaperCell("webvision", "none", 0.0, "gmm_agn", 76.32, None, "CPC, Tab. 3 (76.3 +- 0.36 in Tab. 1)"),
    PaperCell("webvision", "none", 0.0, "gmm_awr", 78.66, None, "CPC, Tab. 3"),
    PaperCell("webvision", "none", 0.0, "cpc_agn", 79.4, None, "CPC, Tab. 3"),
    PaperCell("webvision", "none", 0.0, "cpc_awr", 79.63, 0.08, "CPC, Tab. 1"),
    PaperCell("webvision", "none", 0.0, "cpc_only", 26.8, None, "CPC, Tab. 5"),
    PaperCell("clothing1m", "none", 0.0, "gmm_agn", 74.73, 0.02, "CPC, Tab. 1"),
    PaperCell("clothing1m", "none", 0.0, "gmm_awr", 74.18, None, "CPC, Tab. 3"),
    PaperCell("clothing1m", "none", 0.0, "cpc_agn", 75.40, 0.10, "CPC, Tab. 1"),
    PaperCell("clothing1m", "none", 0.0, "cpc_awr", 74.36, None, "CPC, Tab. 3"),
    PaperCell("clothing1m", "none", 0.0, "cpc_only", 74.09, None, "CPC, Tab. 5"),
)
# data set: the settings with which the paper ran its cells
_SETTINGS: dict[str, dict[str, Any]] = {
    "cifar10": {"model.name": "preact_resnet18", "train.epochs": 450},
    "cifar100": {"model.name": "preact_resnet18", "train.epochs": 450},
    "webvision": {"model.name": "resnet50", "train.epochs": 100, "data.num_classes": 50, "data.flickr": False},
    "clothing1m": {"model.name": "resnet50", "train.epochs": 80},
}


def paper_cell(config: Config) -> PaperCell | None:
    """The cell that a config repeats: same data, noise, cleaner, network and number of epochs, on all samples."""
    data, noise = config.data, config.noise
    settings = flat_settings(config)
    expected = _SETTINGS.get(data.name, {})
    if data.subset or any(settings[key] != value for key, value in expected.items()):
        return None
    for cell in CELLS:
        if (cell.data, cell.noise, cell.rate, cell.cleaner) == (data.name, noise.kind, noise.rate, config.cleaner.kind):
            return cell
    return None
