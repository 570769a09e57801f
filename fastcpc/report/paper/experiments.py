"""The runs of the paper's tables and figures, at full scale and on digits."""

from collections.abc import Sequence
from dataclasses import dataclass

from fastcpc.errors import InputError

TABLE_CLEANERS = ("gmm_agn", "gmm_awr", "cpc_agn", "cpc_awr")
DIGITS = ("digits_sym80", "digits_sym50", "digits_asym40")


@dataclass(frozen=True)
class GridRun:
    """One run of a grid. config: a file of configs/ without its ending; cleaner: cleaner.kind; seed: run.seed."""

    config: str
    cleaner: str
    seed: int

    @property
    def name(self) -> str:
        """The folder of the run."""
        return f"{self.config.replace('/', '-')}-{self.cleaner}-{self.seed}"


@dataclass(frozen=True)
class TableCell:
    """A cell of a table, or a line or panel of a figure: the seeds of one config and cleaner."""

    row: str
    column: str
    config: str
    cleaner: str

    def runs(self, seeds: int) -> list[GridRun]:
        """Its runs, seeds 1 to ``seeds``."""
        return [GridRun(self.config, self.cleaner, seed) for seed in range(1, seeds + 1)]


@dataclass(frozen=True)
class Experiment:
    """name: table2, figure3, ...; title: what it shows. seeds: the paper's (figures 1 and 4: one run)."""

    name: str
    title: str
    cells: tuple[TableCell, ...]
    seeds: int = 3

    @property
    def rows(self) -> list[str]:
        """Titles of the rows, in order."""
        return list(dict.fromkeys(cell.row for cell in self.cells))

    @property
    def columns(self) -> list[str]:
        """Titles of the columns, in order."""
        return list(dict.fromkeys(cell.column for cell in self.cells))


def own_cleaner(config: str) -> str:
    """CPC's cleaner for a config: one mixture of all classes for asymmetric noise, else one per class."""
    return "cpc_agn" if "asym" in config or config.startswith("clothing1m") else "cpc_awr"


def _table2() -> tuple[TableCell, ...]:
    rates = [*(f"cifar10_sym{rate}" for rate in (20, 50, 80, 90)), "cifar10_asym40"]
    rates += [f"cifar100_sym{rate}" for rate in (20, 50, 80, 90)]
    return tuple(
        cell
        for config in rates
        for cell in (
            TableCell(config, "AugDMix", f"baselines/augdmix_{config}", "gmm_agn"),
            TableCell(config, "CPC", config, own_cleaner(config)),
        )
    )


def _by_cleaner(configs: Sequence[str], cleaners: Sequence[str]) -> tuple[TableCell, ...]:
    return tuple(TableCell(config, cleaner, config, cleaner) for config in configs for cleaner in cleaners)


def _without_mixture(configs: Sequence[str]) -> tuple[TableCell, ...]:
    return tuple(
        TableCell(config, title, config, cleaner)
        for config in configs
        for title, cleaner in (("baseline", "gmm_agn"), ("CPC without GMM", "cpc_only"), ("CPC", own_cleaner(config)))
    )


_BENCHMARKS = ("cifar100_sym90", "webvision", "cifar10_asym40", "clothing1m")
_PAIR = ("cifar100_sym90", "cifar10_asym40")
_DIGITS_PAIR = ("digits_sym80", "digits_asym40")
_FIGURES = {
    "figure1": "Losses of each class after the warm-up",
    "figure3": "AUC of the cleaners over epochs",
    "figure4": "KL divergence and agreement of both cleaners",
}


def _own(configs: Sequence[str]) -> tuple[TableCell, ...]:
    return tuple(TableCell(config, own_cleaner(config), config, own_cleaner(config)) for config in configs)


EXPERIMENTS = {
    ("table2", "full"): Experiment("table2", "Accuracy against the baseline", _table2()),
    ("table3", "full"): Experiment("table3", "Accuracy by cleaner", _by_cleaner(_BENCHMARKS, TABLE_CLEANERS)),
    ("table5", "full"): Experiment("table5", "CPC without its mixture", _without_mixture(_BENCHMARKS)),
    ("figure1", "full"): Experiment("figure1", _FIGURES["figure1"], _own(_PAIR), 1),
    ("figure3", "full"): Experiment("figure3", _FIGURES["figure3"], _by_cleaner(_PAIR, TABLE_CLEANERS)),
    ("figure4", "full"): Experiment("figure4", _FIGURES["figure4"], _own(("cifar10_asym40",)), 1),
    # the README's table: plain training beside the four cleaners
    ("table3", "small"): Experiment("table3", "Accuracy by cleaner", _by_cleaner(DIGITS, ("none", *TABLE_CLEANERS))),
    ("table5", "small"): Experiment("table5", "CPC without its mixture", _without_mixture(DIGITS)),
    ("figure1", "small"): Experiment("figure1", _FIGURES["figure1"], _own(_DIGITS_PAIR), 1),
    ("figure3", "small"): Experiment("figure3", _FIGURES["figure3"], _by_cleaner(_DIGITS_PAIR, TABLE_CLEANERS)),
    ("figure4", "small"): Experiment("figure4", _FIGURES["figure4"], _own(("digits_asym40",)), 1),
}
NAMES = tuple(dict.fromkeys(name for name, _ in EXPERIMENTS))
SCALES = ("small", "full")


def experiment(name: str, scale: str) -> Experiment:
    """An experiment by name and scale. InputError where it has no such scale."""
    if (name, scale) not in EXPERIMENTS:
        there = [other for (known, other) in EXPERIMENTS if known == name]
        raise InputError(f"{name}: has no scale {scale}; it is about CIFAR's noise rates: --scale {there[0]}")
    return EXPERIMENTS[name, scale]
