"""The paper's tables and figures from finished runs: Markdown and JSON, SVG and PNG."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fastcpc.engine.outputs.run_dir import plain_json
from fastcpc.engine.outputs.score_file import FIRST
from fastcpc.errors import RunError
from fastcpc.report.html.canvas import SERIES, files
from fastcpc.report.html.comparison import ACCURACY_MEASURES, Spread, spread_of
from fastcpc.report.html.curves import active_auc, series, shade_warmup
from fastcpc.report.html.headline import accuracy_of
from fastcpc.report.html.loss_figures import class_densities, correct_and_wrong, density_plot
from fastcpc.report.paper.experiments import Experiment, TableCell
from fastcpc.report.paper.published import paper_cell
from fastcpc.report.results.run import Run

Results = dict[TableCell, list[Run]]


def _of_both(key: str) -> Callable[[Run], np.ndarray]:
    return lambda run: np.asarray((series(run, key, 0) + series(run, key, 1)) / 2)


# Curves of the figures by their names in the JSON; mean of both networks.
CURVES: dict[str, dict[str, Callable[[Run], np.ndarray]]] = {
    "figure3": {"auc": active_auc},
    "figure4": {key: _of_both(key) for key in ("kl_gmm_cpc", "agreement_gmm_cpc")},
}


def measured(runs: Sequence[Run], measure: str = "last10") -> Spread:
    """Mean and spread over seeds of last10, best or final test accuracy, percent."""
    accuracies = [accuracy_of(run) for run in runs]
    return spread_of([float(getattr(accuracy, measure)) for accuracy in accuracies if accuracy is not None])


def short_name(config: str) -> str:
    """Title of a config in a table: digits_sym80 -> "digits, sym 80"."""
    data, _, noise = config.partition("_")
    kind = noise.rstrip("0123456789")
    return f"{data}, {kind} {noise[len(kind) :]}" if noise else data


def markdown(experiment: Experiment, results: Results) -> list[str]:
    """A Markdown table: mean +- standard deviation (smallest) over seeds of the last-10 accuracy in percent.

    The paper's value follows where the runs repeat one of its cells.
    """
    lines = ["| | " + " | ".join(experiment.columns) + " |", "|---" * (len(experiment.columns) + 1) + "|"]
    for row in experiment.rows:
        cells = []
        for column in experiment.columns:
            runs = next((results[p] for p in experiment.cells if (p.row, p.column) == (row, column)), [])
            cells.append(_cell_text(runs) if runs else "-")
        lines.append(f"| {short_name(row)} | " + " | ".join(cells) + " |")
    return lines


def _cell_text(runs: Sequence[Run]) -> str:
    spread, paper = measured(runs), paper_cell(runs[0].config)
    text = f"{spread.mean:.1f}" if spread.std is None else f"{spread.mean:.1f} +- {spread.std:.1f} ({spread.low:.1f})"
    return text if paper is None else f"{text}; paper {paper.top1:.2f}"


def as_json(experiment: Experiment, scale: str, settings: Sequence[str], results: Results) -> str:
    """The numbers of a table or figure with their runs; curves have an entry per epoch."""
    rows = []
    for cell in experiment.cells:
        runs = results[cell]
        paper = paper_cell(runs[0].config)
        spreads = {measure: measured(runs, measure) for measure in ACCURACY_MEASURES}
        record: dict[str, Any] = {"row": cell.row, "column": cell.column, "cleaner": cell.cleaner}
        record |= {name: {"mean": s.mean, "std": s.std, "min": s.low} for name, s in spreads.items()}
        record["paper"] = None if paper is None else {"top1": paper.top1, "std": paper.spread, "source": paper.source}
        for name, measure in CURVES.get(experiment.name, {}).items():
            rows_SE = _by_epoch([measure(run) for run in runs])
            deviation_E = rows_SE.std(0, ddof=1) if len(rows_SE) > 1 else np.full(rows_SE.shape[1], np.nan)
            record[name] = plain_json({"mean": rows_SE.mean(0), "std": deviation_E})
        record["runs"] = [{"run": run.path.name, "seed": run.config.run.seed, **(run.summary or {})} for run in runs]
        rows.append(record)
    content = {"experiment": experiment.name, "scale": scale, "settings": list(settings), "places": rows}
    return json.dumps(content, indent=1) + "\n"


def figure(experiment: Experiment, results: Results) -> tuple[str, bytes]:
    """The SVG text and PNG bytes of a figure."""
    plot, columns = {"figure1": (_losses, 2), "figure3": (_auc, len(experiment.rows)), "figure4": (_agreement, 2)}[
        experiment.name
    ]
    rows = len(experiment.rows) if experiment.name == "figure1" else 1
    return files(lambda sheet: plot(sheet, experiment, results), width=float(columns), height=1.15 * rows)


def _losses(sheet: Figure, experiment: Experiment, results: Results) -> None:
    """Fig. 1: densities per class of losses of correct and wrong labels, a row per data set; network 1, first seed."""
    axes = sheet.subplots(len(experiment.cells), 2, squeeze=False)
    for cell, row in zip(experiment.cells, axes, strict=True):
        run = results[cell][0]
        scores, trusted_N = run.scores(FIRST), run.labels.trusted_N
        values_N = scores.values(0) if scores is not None else None
        if values_N is None or trusted_N is None:
            raise RunError(f"{run.path}: no losses of the first cleaning, or no true labels; train the run again")
        for ax, (kind, rows_N), colour in zip(row, correct_and_wrong(run, trusted_N), SERIES, strict=False):
            densities = class_densities(values_N[rows_N], run.labels.given_N[rows_N], len(run.class_names))
            density_plot(densities, colour)(ax)
            ax.set_title(f"{short_name(cell.row)}: losses of {kind} labels, by class")


def _auc(sheet: Figure, experiment: Experiment, results: Results) -> None:
    """Fig. 3: AUC of each cleaner over epochs, a panel per data set; mean of seeds, band: standard deviation."""
    axes = sheet.subplots(1, len(experiment.rows), squeeze=False)[0]
    for ax, row in zip(axes, experiment.rows, strict=True):
        for cell, colour in zip([p for p in experiment.cells if p.row == row], SERIES, strict=False):
            _band(ax, [CURVES["figure3"]["auc"](run) for run in results[cell]], colour, cell.column)
        _finish(ax, results, row, experiment, "AUC, correct against wrong labels")
        ax.legend(loc="lower right")


def _agreement(sheet: Figure, experiment: Experiment, results: Results) -> None:
    """Fig. 4: KL divergence and agreement of mixture and prototypes over epochs, mean of both networks."""
    axes = sheet.subplots(1, 2)
    for ax, key, unit in zip(axes, ("kl_gmm_cpc", "agreement_gmm_cpc"), ("KL, nats", "agreement"), strict=True):
        for cell in experiment.cells:
            _band(ax, [CURVES["figure4"][key](run) for run in results[cell]], SERIES[0], cell.column)
        _finish(ax, results, experiment.rows[0], experiment, unit)


def _band(ax: Axes, rows: Sequence[np.ndarray], colour: str, label: str) -> None:
    values = _by_epoch(rows)
    mean, epochs = values.mean(0), np.arange(values.shape[1])
    ax.plot(epochs, mean, color=colour, label=label)
    if len(values) > 1:
        spread = values.std(0, ddof=1)
        ax.fill_between(epochs, mean - spread, mean + spread, color=colour, alpha=0.18, linewidth=0)


def _by_epoch(rows: Sequence[np.ndarray]) -> np.ndarray:
    """A row per run, cut to the shortest run: (S, E)."""
    return np.stack([row[: min(map(len, rows))] for row in rows])


def _finish(ax: Axes, results: Results, row: str, experiment: Experiment, unit: str) -> None:
    runs = next(results[cell] for cell in experiment.cells if cell.row == row)
    shade_warmup(ax, [line["epoch"] for line in runs[0].metrics], runs[0].config.train.warmup_epochs)
    ax.set_title(f"{short_name(row)}, {len(runs)} seed{'s' if len(runs) > 1 else ''}")
    ax.set_xlabel("epoch")
    ax.set_ylabel(unit)
