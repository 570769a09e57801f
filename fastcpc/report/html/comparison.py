"""Compare runs: group the seeds of each config, mean and spread per group, difference from a baseline."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastcpc.config.names import DATASETS
from fastcpc.config.schema import Config
from fastcpc.engine.checkpoint.config_diff import FREE_KEYS, flat_settings
from fastcpc.errors import InputError
from fastcpc.report.html.headline import accuracy_of
from fastcpc.report.paper.published import PaperCell, paper_cell
from fastcpc.report.results.run import Run

# Settings that may differ within a group: seeds, names, folders, and how (not what) is computed.
_SEED_KEYS = (FREE_KEYS - {"noise.file"}) | {
    "run.seed", "noise.seed", "run.deterministic", "data.feed", "data.workers", "data.index",
}  # fmt: skip
ACCURACY_MEASURES = ("last10", "best", "final")


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (None of a single value) of n values, with the smallest of them."""

    mean: float
    std: float | None
    n: int
    low: float

    def __str__(self) -> str:
        return f"{self.mean:.2f}" + (f" +- {self.std:.2f}" if self.std is not None else "")


@dataclass(frozen=True)
class RunGroup:
    """Finished runs that differ only in their seeds.

    values: setting -> text, of the settings in which the groups differ. measures: last10, best, final -> test accuracy
    in percent by seed. at_budget: by seed, accuracy at the comparison's FLOPs; empty where a run has no count.
    cell: the paper's cell that the config repeats, if any.
    """

    runs: tuple[Run, ...]
    values: dict[str, str]
    measures: dict[str, tuple[float, ...]]
    cell: PaperCell | None
    at_budget: tuple[float, ...] = ()

    @property
    def config(self) -> Config:
        """The config of the first seed."""
        return self.runs[0].config

    @property
    def seeds(self) -> list[int]:
        """Seeds, ascending."""
        return sorted(run.config.run.seed for run in self.runs)

    def spread(self, measure: str) -> Spread:
        """Mean and spread of a measure over the seeds."""
        return spread_of(self.measures[measure])


@dataclass(frozen=True)
class Comparison:
    """Groups in the order of their first runs.

    differences: per group, points of the last-10 mean above the baseline's; None where there is no baseline for it.
    keys: the settings in which groups differ. left_out: a sentence for each run that is not counted. flops: the
    training FLOPs of the run with the fewest; None where no run has a count.
    """

    groups: list[RunGroup]
    differences: list[float | None]
    keys: list[str]
    left_out: list[str]
    baseline: str
    flops: float | None = None


def spread_of(values: Sequence[float]) -> Spread:
    """Mean and spread of at least one value."""
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(float(np.mean(values)), std, len(values), min(values))


def compare(runs: Sequence[Run], baseline: Run | str | None = None) -> Comparison:
    """Group runs by config and compare the groups with a baseline.

    baseline: one of the runs stands for its group. With key=value, a group's baseline is the group with this value, the
    same data and noise, and the most other settings in common. InputError where no run is finished or no run has the
    baseline.
    """
    left_out: list[str] = []
    finished = _finished(runs, left_out)
    if not finished:
        raise InputError(f"none of the {len(runs)} runs is finished; finish one with fastcpc-train")
    by_config: dict[tuple[tuple[str, str], ...], list[Run]] = {}
    for run in finished:
        by_config.setdefault(_group_key(run.config), []).append(run)
    keys = _differing([dict(config) for config in by_config])
    groups = [
        _group(members, {key: dict(config).get(key, "") for key in keys}, left_out)
        for config, members in by_config.items()
    ]
    budget = _budget(finished)
    groups = [replace(group, at_budget=_at_budget(group.runs, budget)) for group in groups]
    references = [_reference(group, groups, baseline) for group in groups]
    name = baseline.path.name if isinstance(baseline, Run) else baseline or ""
    if baseline is not None and not any(references):
        raise InputError(f"--baseline {name}: no finished run has it")
    differences = [
        None if other is None or other is group else group.spread("last10").mean - other.spread("last10").mean
        for group, other in zip(groups, references, strict=True)
    ]
    return Comparison(groups, differences, keys, left_out, name, budget)


def _budget(runs: Sequence[Run]) -> float | None:
    totals = [line["training_flops"] for run in runs if (line := run.metrics[-1]).get("training_flops")]
    return float(min(totals)) if totals else None


def _at_budget(runs: Sequence[Run], budget: float | None) -> tuple[float, ...]:
    """Test accuracy of each run after its last epoch within the FLOPs; empty where one is unknown."""
    if budget is None:
        return ()
    found: list[float] = []
    for run in runs:
        within = [line for line in run.metrics if 0 < (line.get("training_flops") or 0) <= budget]
        if not within or within[-1].get("test_top1") is None:
            return ()
        found.append(float(within[-1]["test_top1"]))
    return tuple(found)


def settings_as_text(config: Config) -> dict[str, str]:
    """Every setting as in a command, by its dotted key."""
    return {key: _as_text(value) for key, value in flat_settings(config).items()}


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _group_key(config: Config) -> tuple[tuple[str, str], ...]:
    """The settings that the runs of a group share; data.root where it decides which data set it is."""
    free = _SEED_KEYS - {"data.root"} if DATASETS[config.data.name].is_users_own else _SEED_KEYS
    return tuple((key, value) for key, value in settings_as_text(config).items() if key not in free)


def _finished(runs: Sequence[Run], left_out: list[str]) -> list[Run]:
    kept: dict[str, Run] = {}
    for run in runs:
        where = str(run.path.resolve())
        if run.summary is None:
            done, epochs = len(run.metrics), run.config.train.epochs
            left_out.append(f"{run.path} is not finished ({done} of {epochs} epochs) and is not counted.")
        elif where in kept:
            left_out.append(f"{run.path} was given twice and is counted once.")
        elif accuracy_of(run) is None:
            left_out.append(f"{run.path} has no accuracy in its metrics and is not counted.")
        else:
            kept[where] = run
    return list(kept.values())


def _group(runs: list[Run], values: dict[str, str], left_out: list[str]) -> RunGroup:
    seeds = [run.config.run.seed for run in runs]
    twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    for seed in twice:
        same = ", ".join(str(run.path) for run in runs if run.config.run.seed == seed)
        left_out.append(f"Seed {seed} is in several runs ({same}): they are not independent.")
    accuracies = [accuracy for run in runs if (accuracy := accuracy_of(run)) is not None]
    measures = {name: tuple(getattr(accuracy, name) for accuracy in accuracies) for name in ACCURACY_MEASURES}
    return RunGroup(tuple(runs), values, measures, paper_cell(runs[0].config))


def _differing(configs: Sequence[dict[str, str]]) -> list[str]:
    known = dict.fromkeys(key for config in configs for key in config)
    return [key for key in known if len({config.get(key, "") for config in configs}) > 1]


def _reference(group: RunGroup, groups: Sequence[RunGroup], baseline: Run | str | None) -> RunGroup | None:
    """The baseline of a group, or None."""
    if baseline is None or isinstance(baseline, Run):
        return next((other for other in groups if baseline is not None and _contains(other, baseline)), None)
    key, _, value = baseline.partition("=")
    own = settings_as_text(group.config)
    if key not in own:
        raise InputError(f"--baseline {baseline}: no such setting: {key}; see fastcpc-train --help")
    task = [k for k in own if k.startswith(("data.", "noise.")) and k not in _SEED_KEYS and k != key]
    best, most = None, -1
    for other in groups:
        flat = settings_as_text(other.config)
        num_equal = sum(flat[k] == own[k] for k in own)
        if flat[key] == value and all(flat[k] == own[k] for k in task) and num_equal > most:
            best, most = other, num_equal
    return best


def _contains(group: RunGroup, run: Run) -> bool:
    return any(own.path.resolve() == run.path.resolve() for own in group.runs)


def to_csv(comparison: Comparison) -> str:
    """A row per group.

    Columns: the settings that differ, the seeds, and of each measure the mean, standard deviation and smallest value in
    percent. Then the difference from the baseline in points, and the paper's value with its source. Last the FLOPs of
    the cheapest run, and the accuracy at these.
    """
    header = [*comparison.keys, "seeds"]
    header += [f"{measure}_{part}" for measure in ACCURACY_MEASURES for part in ("mean", "std", "min")]
    header += ["difference", "paper_top1", "paper_std", "paper_source"]
    header += ["flops", *(f"equal_flops_{part}" for part in ("mean", "std", "min"))]
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(header)
    for group, delta in zip(comparison.groups, comparison.differences, strict=True):
        row: list[Any] = [*group.values.values(), " ".join(map(str, group.seeds))]
        for measure in ACCURACY_MEASURES:
            spread = group.spread(measure)
            row += [spread.mean, spread.std, spread.low]
        row.append(delta)
        cell = group.cell
        row += [cell.top1, cell.spread, cell.source] if cell is not None else [None, None, None]
        equal = spread_of(group.at_budget) if group.at_budget else None
        row += [comparison.flops, *((equal.mean, equal.std, equal.low) if equal else (None, None, None))]
        writer.writerow(row)
    return buffer.getvalue()
