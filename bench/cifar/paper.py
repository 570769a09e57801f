"""What the CIFAR runs show of the paper's figures 1, 3 and 4."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastcpc.engine.outputs.score_file import FIRST
from fastcpc.report.html.loss_figures import loss_tests
from fastcpc.report.results.run import read_run

BEGIN, END = "<!-- cifar figures: bench/cifar/full_runs.py -->", "<!-- end of cifar figures -->"
CURVES = ("auc_gmm", "auc_cpc", "kl_gmm_cpc", "agreement_gmm_cpc")
PAPER = "| paper, CIFAR-100 sym 90 | 54%, 53% | - | - | - | - |"


def class_tests(folder: Path) -> dict[str, Any]:
    """Kolmogorov-Smirnov tests after the warm-up of a run: one p-value per class, for correct and for wrong labels.

    Each tests the losses of a class against those of all classes, network 1. Empty for a run without a cleaning.
    """
    run = read_run(folder)
    return {test.kind: test.p_values_K for test in loss_tests(run, run.scores(FIRST))}


def table(records: Sequence[dict[str, Any]]) -> list[str]:
    """Markdown: one line per run that has a cleaning; mean of both networks at the first and at the last cleaning."""
    lines = [
        "| run | classes with other losses (fig. 1): correct, wrong labels | AUC of the mixture (fig. 3) "
        "| AUC of the prototypes (fig. 3) | KL (fig. 4) | agreement (fig. 4) |",
        "|---|---|---|---|---|---|",
    ]
    for record in records:
        if record["class_tests"]:
            cells = [_shares(record["class_tests"]), *(_first_and_last(record["curves"][name]) for name in CURVES)]
            lines.append(f"| {record['name']} | " + " | ".join(cells) + " |")
    return [*lines, PAPER]


def _shares(tests: dict[str, list[float | None]]) -> str:
    """Shares of classes with p below 0.05, of those with a test: some have no wrong labels with asymmetric noise."""
    tested = [[p for p in tests[kind] if p is not None] for kind in ("correct", "wrong")]
    return ", ".join(f"{sum(p < 0.05 for p in values) / len(values):.0%}" for values in tested)


def _first_and_last(curve: Sequence[Sequence[float] | None]) -> str:
    means = [sum(both) / 2 for both in curve if both is not None and both[0] is not None]
    return f"{means[0]:.3f}, {means[-1]:.3f}" if means else "-"
