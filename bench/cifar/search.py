"""Trials for the CPU recipe of CIFAR-10: one change at a time on 20,000 images, with FLOPs and accuracy.

    python bench/cifar/search.py --data DIR             # all trials that have no row yet; repeat the command to resume
    python bench/cifar/search.py --data DIR --only light

Each trial is a run of ``configs/cpu/cifar10_sym50.yaml`` with 16 channels and 10 epochs, 5 of them warm-up. All trials
of a seed have the same warm-up. A trial with ``+`` continues the one before the ``+``. Writes
bench/results/cifar_search.json, and the table into docs/experiments.md. The test accuracy chose the recipe, so the
table flatters it slightly.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from full_runs import BENCH, RESULT, Record, Run, read, train
from pages import DOCS, put_between

BEGIN, END = "<!-- cifar trials: bench/cifar/search.py -->", "<!-- end of cifar trials -->"
TRIALS_FILE = RESULT.with_name("cifar_search.json")
SMALL = (
    "data.subset=20000", "model.width=16", "cpc.embedding_dim=32", "train.epochs=10", "train.warmup_epochs=5",
    "semisup.rampup_epochs=3", "cleaner.warmup=0.05", "augment.style=augdmix",
    "train.batch_size=128",
)  # fmt: skip
AFTER_13 = ("train.warmup_epochs=13", "cleaner.warmup=0")
PAPER = ("augment.train=strong", "semisup.mixup_alpha=4", "semisup.lambda_u=25")

# name of the trial: what differs from the recipe
TRIALS = {
    "paper": PAPER,
    "light": (),
    "strong": ("augment.train=strong",),
    "mixup": ("semisup.mixup_alpha=4",),
    "lambda": ("semisup.lambda_u=25",),
    "two-views": ("semisup.views=2",),
    "average": ("ema.decay=0.99",),
    "labelled": ("semisup.lambda_u=0", "semisup.labelled_half_only=true"),
    "plain": ("cleaner.kind=none", "train.epochs=13"),
    "sym80": ("noise.rate=0.8", "train.epochs=12"),
    "sym80-gmm_agn": ("noise.rate=0.8", "cleaner.kind=gmm_agn", "train.epochs=12"),
    "sym80-plain": ("noise.rate=0.8", "cleaner.kind=none", "train.epochs=13"),
    "asym40": ("noise.kind=asym", "noise.rate=0.4", "cleaner.kind=cpc_agn"),
    "asym40-plain": ("noise.kind=asym", "noise.rate=0.4", "cleaner.kind=none", "train.epochs=13"),
    "asym40-plain+plain": ("noise.kind=asym", "noise.rate=0.4", "cleaner.kind=none", "train.epochs=22"),
    "asym40-plain+cpc": ("noise.kind=asym", "noise.rate=0.4", "cleaner.kind=cpc_agn", "train.epochs=18", *AFTER_13),
    "long": ("cleaner.kind=none", "train.epochs=26"),
    "long+plain": ("cleaner.kind=none", "train.epochs=37"),
    "long+cpc": ("train.epochs=32", "train.warmup_epochs=26", "cleaner.warmup=0"),
}
# trial: the one whose last checkpoint starts it
AFTER = {name: name.split("+")[0] for name in TRIALS if "+" in name}


def table(records: Sequence[Record]) -> list[str]:
    """Markdown: one line per trial."""
    lines = [
        "| trial | settings | final top-1 | best top-1 | final top-1 of one network | training FLOPs |",
        "|---|---|---|---|---|---|",
    ]
    for name, settings in TRIALS.items():
        for record in (one for one in records if one["name"] == name):
            shown = ", ".join(f"`{setting}`" for setting in settings) or "the recipe"
            lines.append(
                f"| {name} | {shown} | {record['final_top1']:.1f} | {record['best_top1']:.1f} "
                f"| {mean(record['curves'][key][-1] for key in ('net1_top1', 'net2_top1')):.1f} "
                f"| {record['training_flops']:.2g} |"
            )
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", metavar="DIR", required=True, help="folder of the binary files of CIFAR-10")
    parser.add_argument("--only", nargs="*", choices=list(TRIALS), help="only these trials")
    parser.add_argument(
        "--folder", type=Path, default=BENCH.parent / "runs" / "cifar_search", help="where the runs are kept"
    )
    options = parser.parse_args(argv)
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, settings in TRIALS.items():
        if (options.only is None or name in options.only) and name not in [row["name"] for row in read(TRIALS_FILE)]:
            run = Run("sym50", "cpc_awr", settings=(*SMALL, *settings), title=name, after=AFTER.get(name, ""))
            row = train(run, options.folder, os.path.abspath(options.data))
            del row["cpu_seconds"]  # trials are compared by FLOPs
            content = {"runs": [*read(TRIALS_FILE), row]}
            TRIALS_FILE.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    lines = table(read(TRIALS_FILE))
    print("\n".join(lines))
    put_between(BEGIN, END, lines, DOCS / "experiments.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
