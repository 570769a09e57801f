"""fastcpc-clean: write the suspects of a run, and optionally the data set without them."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fastcpc.arrays import Ints
from fastcpc.atomic_io import replace_file
from fastcpc.cli.clean import CAUTION
from fastcpc.config.constraints import shown
from fastcpc.config.sources import path_text
from fastcpc.data.corrections.decisions import Correction, corrections_csv, describe
from fastcpc.engine.outputs.sample_table import SampleTable
from fastcpc.errors import InputError
from fastcpc.report.audits.record import read_audit
from fastcpc.report.audits.text import CAUTION as AUDIT_CAUTION
from fastcpc.report.results.cleaned_list import write_cleaned
from fastcpc.report.results.corrected_list import load_corrected, past_decisions, run_decisions, write_corrected
from fastcpc.report.results.images import TrainingImages
from fastcpc.report.results.review_tasks import write_tasks
from fastcpc.report.results.run import Run, read_run
from fastcpc.report.results.samples import read_samples
from fastcpc.report.results.similar_images import near_duplicates, near_duplicates_table, unit_features
from fastcpc.report.results.suspect_files import table_writer
from fastcpc.report.results.suspects import Suspects, find_suspects, suspects_table

BAD_IMAGES = "bad_images.txt"  # of a run's folder
SHOWN = 10  # suspects that are printed; the file has all


def run(options: argparse.Namespace) -> int:
    """Write the table of suspects and the cleaned list; returns the exit code. options: of ``fastcpc.cli.clean``."""
    run = read_run(options.run)
    samples = read_samples(run)
    suspects = find_suspects(run, samples, options.threshold)
    print(summary_line(run, samples, suspects))
    if options.root:
        run = replace(run, config=replace(run.config, data=replace(run.config.data, root=options.root)))
    data, decided = None, tuple[Correction, ...]()
    if options.corrections and options.cleaned_list:
        data = load_corrected(run, options.corrections)
        decided = data[1].corrections
    elif options.corrections:
        decided = run_decisions(run, samples, options.corrections)
    if options.corrections:
        _print_decisions(run, samples, suspects, options.corrections, decided)
    if options.corrections_out:
        replace_file(options.corrections_out, corrections_csv(decided))
        print(f"{len(decided):,} decisions written to {options.corrections_out}")
    is_open_N = ~np.isin(samples.index_N, [one.index for one in decided])
    rows = suspects.order_N if options.all else suspects.rows
    rows = rows[is_open_N[rows]]
    if options.out:
        replace_file(options.out, table_writer(options.out)(suspects_table(run, samples, suspects, rows)))
        print(f"{len(rows):,} rows written to {options.out}")
    if options.label_studio:
        print(write_tasks(run, samples, suspects.rows[is_open_N[suspects.rows]], options.label_studio))
    if options.near_duplicates:
        print(_write_near_duplicates(run, samples, suspects.rows[is_open_N[suspects.rows]], options.near_duplicates))
    unread = unreadable(run, samples, suspects)
    if unread:
        print(
            f"{len(unread):,} of the suspects could not be read in training (first {path_text(unread[0])}): their "
            f"scores are of replacement images; {run.path / BAD_IMAGES} has the reasons"
        )
    if options.cleaned_list:
        if data is not None:
            usage = write_corrected(run, *data, options.cleaned_list)
        else:
            usage = write_cleaned(run, samples, suspects.is_issue_N, options.cleaned_list)
        print(f"cleaned list written to {options.cleaned_list}: {usage}")
    print(CAUTION if read_audit(run.path, len(run.class_names)) is None else AUDIT_CAUTION)
    return 0


def _write_near_duplicates(run: Run, samples: SampleTable, rows: Ints, target: Path) -> str:
    unit_ND, problem = unit_features(run, samples)
    if unit_ND is None:
        raise InputError(f"--near-duplicates: {problem}")
    images = TrainingImages(run, samples, run.config.data.root)
    pairs = near_duplicates(samples, rows, unit_ND, images)
    replace_file(target, table_writer(target)(near_duplicates_table(run, samples, pairs)))
    how = f"; by their features alone ({images.problem})" if images.problem else ""
    return f"{len(pairs):,} pairs of near duplicates with different labels written to {target}{how}"


def _print_decisions(
    run: Run, samples: SampleTable, suspects: Suspects, file: Path, decided: Sequence[Correction]
) -> None:
    index = {one.index for one in decided}
    num_open = sum(i not in index for i in samples.index_N[suspects.rows].tolist())
    print(f"{file}: {describe(decided)}; {num_open:,} suspects without a decision keep their given labels")
    forgotten = sum(one.index not in index for one in past_decisions(run))
    if forgotten:
        print(f"{forgotten:,} decisions that {run.path} was trained with are not in {file}: they are not applied")


def unreadable(run: Run, samples: SampleTable, suspects: Suspects) -> list[str]:
    """The paths of suspects that the run met as broken images, which it replaced; the index does not know them."""
    try:
        text = (run.path / BAD_IMAGES).read_bytes().decode("utf-8", "surrogateescape")
    except OSError:
        return []
    parts_of = [line.split("\t")[0].split("/") for line in text.splitlines()]
    ends = {"/".join(parts[begin:]) for parts in parts_of for begin in range(len(parts))}  # data.root may have moved
    return [samples.paths[row] for row in suspects.rows.tolist() if samples.paths[row] in ends]


def summary_line(run: Run, samples: SampleTable, suspects: Suspects) -> str:
    """The printed summary: the number of suspects, precision and recall where known, the worst suspects."""
    num_suspects = len(suspects.rows)
    lines = [
        f"{run.path}: {num_suspects:,} of {len(samples):,} labels are suspected to be wrong (clean probability at most "
        f"{suspects.threshold:g}, and both networks together predict another class)"
    ]
    if run.summary is None:
        lines.append(f"the run is not finished: this is its last cleaning, before epoch {len(run.metrics)}")
    quality = suspects.quality
    if quality is not None:
        lines.append(
            f"{quality.num_wrong:,} labels are known to be wrong: precision {_percent(quality.precision)}, recall "
            f"{_percent(quality.recall)}; {_percent(quality.suggestion_accuracy)} of those found have the right "
            "suggestion"
        )
    if num_suspects:
        lines.append(f"{'score':>7}  {'index':>8}  given -> suggested  path")
    for row in suspects.rows[:SHOWN].tolist():
        given, suggested = (shown(run.class_names[int(k)]) for k in (samples.given_N[row], samples.predicted_N[row]))
        lines.append(
            f"{suspects.label_score_N[row]:>7.4f}  {samples.index_N[row]:>8}  {given} -> {suggested}  "
            f"{path_text(samples.paths[row])}"
        )
    if num_suspects > SHOWN:
        lines.append(f"... {num_suspects - SHOWN:,} more")
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.1f} %"
