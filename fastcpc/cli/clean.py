"""fastcpc-clean: the suspected label errors of a run, worst first, and lists of what is left without them.

Exit codes: 0 done, 1 a file cannot be written, 2 usage, or a run that has not cleaned yet.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fastcpc.atomic_io import replace_file
from fastcpc.cli.exit_codes import InputParser, report_error
from fastcpc.config.constraints import shown
from fastcpc.config.sources import path_text
from fastcpc.errors import InputError
from fastcpc.report.results.cleaned_list import write_cleaned
from fastcpc.report.results.run import Run, read_run
from fastcpc.report.results.samples import Samples, read_samples
from fastcpc.report.results.suspect_files import refuse_existing, table_writer
from fastcpc.report.results.suspects import Suspects, find_suspects, suspects_table

PROGRAM = "fastcpc-clean"
SHOWN = 10  # suspects that are printed; the file has all
CAUTION = (
    "The scores are in-sample: the networks have trained on these images. Each learns from what the other one held "
    "clean, which softens this; still, look before you delete."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; argv: the arguments, None for the process's own."""
    return report_error(PROGRAM, lambda: _command(_parser().parse_args(argv)))


def _command(options: argparse.Namespace) -> int:
    run = read_run(options.run)
    samples = read_samples(run)
    out = options.out or run.path / "suspects.csv"
    encode = table_writer(out)
    targets = [out, *([options.cleaned_list] if options.cleaned_list else [])]
    for target in targets:
        refuse_existing(target, force=options.force)
    if len({target.resolve() for target in targets}) < len(targets):
        raise InputError(f"--out and --cleaned-list both name {out}")
    suspects = find_suspects(run, samples, options.threshold)
    print(describe(run, samples, suspects))
    rows = suspects.order_N if options.all else suspects.rows
    replace_file(out, encode(suspects_table(run, samples, suspects, rows)))
    print(f"{len(rows):,} rows written to {out}")
    if options.cleaned_list:
        if options.root:
            data = replace(run.config.data, root=options.root)
            run = replace(run, config=replace(run.config, data=data))
        usage = write_cleaned(run, samples, suspects.is_issue_N, options.cleaned_list)
        print(f"cleaned list written to {options.cleaned_list}: {usage}")
    print(CAUTION)
    return 0


def describe(run: Run, samples: Samples, suspects: Suspects) -> str:
    """What is printed of the suspects: how many, how right that is, the worst of them."""
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
            f"{_percent(quality.recall)}; of those found, {_percent(quality.suggestion_accuracy)} have the right "
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


def _parser() -> argparse.ArgumentParser:
    parser = InputParser(
        prog=PROGRAM,
        description="Suspected label errors of a run, worst first, with the class that both networks suggest.",
        epilog=CAUTION,
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of the run")
    parser.add_argument(
        "--out", metavar="FILE", type=Path, help="table of the suspects, .csv or .parquet (default: RUN/suspects.csv)"
    )
    parser.add_argument(
        "--all", action="store_true", help="every sample in the table, is_label_issue tells the suspects"
    )
    parser.add_argument(
        "--threshold", metavar="T", type=_probability,
        help="suspect labels whose clean probability is at most T, in [0, 1] (default: the run's cleaner.tau)",
    )  # fmt: skip
    parser.add_argument(
        "--cleaned-list", metavar="FILE", type=Path,
        help="what is left, as the data set reads it: digits, CIFAR: .csv for noise.file, suspects relabelled; "
        "clothing1m: a key list; webvision: a filelist; imagefolder: .csv or .parquet for data.list, or a new folder "
        "of links",
    )  # fmt: skip
    parser.add_argument(
        "--root", metavar="DIR", default="", help="where the data set lies now, for --cleaned-list (default: data.root)"
    )
    parser.add_argument("--force", action="store_true", help="replace files that exist already (never folders)")
    return parser


def _probability(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number in [0, 1]")
    return value


if __name__ == "__main__":
    sys.exit(main())
