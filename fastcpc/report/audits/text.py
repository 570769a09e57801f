"""What fastcpc-audit prints: the estimated number of wrong labels, the worst classes, the files, and the next step."""

from pathlib import Path

import numpy as np

from fastcpc.arrays import Bools, Ints
from fastcpc.config.constraints import shown
from fastcpc.report.audits.record import AuditRecord

MOST_CLASSES = 10
CAUTION = (
    "The scores are out of sample: each is from heads that did not train on that sample. Check an image before you "
    "change its label."
)


def describe_audit(record: AuditRecord, class_names: tuple[str, ...], given_N: Ints, is_issue_N: Bools) -> list[str]:
    """The estimates, one line each: overall, then the classes with the highest share of wrong labels."""
    num_samples, num_issues = len(given_N), int(is_issue_N.sum())
    low, high = record.noise_interval
    if not record.has_evidence:
        lines = [
            f"no evidence of wrong labels: estimated {_share(record.noise_rate)} of {num_samples:,} labels, 90 % "
            f"interval {_share(low)} to {_share(high)}"
        ]
    else:
        lines = [
            f"estimated wrong labels: {record.noise_rate * num_samples:,.0f} of {num_samples:,} "
            f"({_share(record.noise_rate)}), 90 % interval {low * num_samples:,.0f} to {high * num_samples:,.0f} "
            f"({_share(low)} to {_share(high)})"
        ]
    lines.append(f"{num_issues:,} labels are suspected to be wrong (another class is more likely than the given one)")
    count_K = np.bincount(given_N, minlength=len(class_names))
    suspects_K = np.bincount(given_N[is_issue_N], minlength=len(class_names))
    width = max(len(shown(class_names[k])) for k in record.worst_classes(MOST_CLASSES).tolist())
    lines.append(f"{'class':<{width}}  {'labels':>8}  {'wrong':>8}  {'90 % interval':>17}  {'suspects':>8}")
    for k in record.worst_classes(MOST_CLASSES).tolist():
        first, last = (count_K[k] * bound for bound in record.class_interval_K2[k])
        lines.append(
            f"{shown(class_names[k]):<{width}}  {count_K[k]:>8,}  {count_K[k] * record.class_rate_K[k]:>8,.0f}  "
            f"{f'{first:,.0f} to {last:,.0f}':>17}  {suspects_K[k]:>8,}"
        )
    if len(class_names) > MOST_CLASSES:
        lines.append(f"... {len(class_names) - MOST_CLASSES:,} more classes are in report.html")
    return lines


def next_steps(folder: Path, num_issues: int) -> list[str]:
    """Where the files are, and what to do with them."""
    lines = [f"written to {folder}: suspects.csv ({num_issues:,} rows, worst first) and report.html"]
    if num_issues:
        lines.append(
            f"next: open {folder / 'report.html'} and check the worst labels; fastcpc-clean {folder} --force "
            "--cleaned-list labels.csv writes the labels with the suggestions"
        )
    return lines


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"
