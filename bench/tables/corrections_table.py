"""The gain of correcting the first 200 suspects: clothing images, before and after, with true labels as the reviewer.

    python bench/tables/corrections_table.py --root /path/to/clothing-small --epochs 24 --seeds 2

Per seed it trains configs/clothing_small.yaml, takes the first suspects in the order of the report, and writes their
true labels to corrections.csv. Then it trains again with data.corrections and the same seed. Runs are on one thread,
one at a time; repeat the command to resume. Writes bench/results/corrections_table.json after each run and, at the end,
the table of docs/experiments.md. --epochs N shortens all phases of the config in proportion.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clothing_table import CONFIG, LAST, command, prepare
from pages import DOCS, ROOT, put_between

from fastcpc.config.load import load_config
from fastcpc.data.corrections.decisions import Correction, corrections_csv
from fastcpc.report.results.run import read_run
from fastcpc.report.results.samples import read_samples
from fastcpc.report.results.suspects import find_suspects

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # bench/: the modules of all benches
from harness import this_machine

RESULT = ROOT / "bench" / "results" / "corrections_table.json"
REVIEWED = 200
BEGIN, END = "<!-- corrections table: bench/tables/corrections_table.py -->", "<!-- end of corrections table -->"

Record = dict[str, Any]


def settings_of(epochs: int) -> list[str]:
    """The settings of a run of this many epochs; 0: those of the config."""
    if not epochs:
        return []
    train = load_config([CONFIG], []).train
    warmup, drop = (round(part * epochs / train.epochs) for part in (train.warmup_epochs, train.lr_drop_epoch))
    return [f"train.epochs={epochs}", f"train.warmup_epochs={warmup}", f"train.lr_drop_epoch={drop}"]


def train(seed: int, target: Path, settings: Sequence[str]) -> Record:
    """Train one run unless it is finished; returns its accuracies and the share of wrong labels."""
    command("train", "--config", str(CONFIG), f"run.seed={seed}", f"run.dir={target}", "device=cpu", *settings)
    lines = [json.loads(line) for line in (target / "metrics.jsonl").read_text().splitlines()]
    top1 = [line["test_top1"] for line in lines]
    summary = json.loads((target / "summary.json").read_text())
    given, true = (getattr(read_run(target).labels, name) for name in ("given_N", "trusted_N"))
    return {
        "seed": seed,
        "last_top1": statistics.mean(top1[-LAST:]),
        "best_top1": max(top1),
        "test_top1": top1,
        "seconds": summary["seconds"],
        "wrong": int((given != true).sum()),
        "labels": len(given),
    }


def write_corrections(folder: Path, target: Path) -> Record:
    """Write the true labels of the first suspects of a run; returns how many were wrong, and right suggestions."""
    run = read_run(folder)
    samples = read_samples(run)
    rows = find_suspects(run, samples).rows[:REVIEWED].tolist()
    true_N = run.labels.trusted_N
    assert true_N is not None
    made = []
    for row in rows:
        given, true = int(samples.given_N[row]), int(true_N[row])
        decision = "keep" if given == true else "relabel"
        made.append(Correction(int(samples.index_N[row]), samples.paths[row], given, decision, true))  # type: ignore[arg-type]
    target.write_bytes(corrections_csv(made))
    right = sum(int(samples.predicted_N[row]) == int(true_N[row]) for row in rows)
    return {"reviewed": len(rows), "relabelled": sum(one.decision == "relabel" for one in made), "right": right}


def table(records: Sequence[Record]) -> list[str]:
    """Markdown: accuracy before and after, one line per seed."""
    lines = [
        f"| seed | wrong labels | of {REVIEWED} suspects wrong, suggestion right | before | after | gain |",
        "|---|---|---|---|---|---|",
    ]
    for record in records:
        before, after = record["before"], record.get("after")
        if after is None:
            continue
        share = [f"{100 * run['wrong'] / run['labels']:.1f} %" for run in (before, after)]
        gain = after["last_top1"] - before["last_top1"]
        lines.append(
            f"| {before['seed']} | {share[0]}, then {share[1]} | {record['relabelled']}, {record['right']} | "
            f"{before['last_top1']:.1f} | {after['last_top1']:.1f} | {gain:+.1f} |"
        )
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", required=True, help="folder of the images: train/, validation/ and test/")
    parser.add_argument("--seeds", type=int, default=1, help="seeds 1..N")
    parser.add_argument("--epochs", type=int, default=0, help="epochs of each run; 0: those of the config")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "corrections_table", help="where the runs are")
    options = parser.parse_args(argv)
    options.folder.mkdir(parents=True, exist_ok=True)
    index = prepare(options.root, options.folder)
    settings = [f"data.root={options.root}", f"data.index={index}", "data.workers=1", *settings_of(options.epochs)]
    records: list[Record] = []
    for seed in range(1, options.seeds + 1):
        before = train(seed, options.folder / f"before-{seed}", settings)
        file = options.folder / f"corrections-{seed}.csv"
        records.append({"before": before, **write_corrections(options.folder / f"before-{seed}", file)})
        write(records, options)
        corrected = [*settings, f"data.corrections={file}"]
        records[-1]["after"] = train(seed, options.folder / f"after-{seed}", corrected)
        write(records, options)
    print("\n".join(table(records)))
    put_between(BEGIN, END, table(records), DOCS / "experiments.md")
    return 0


def write(records: Sequence[Record], options: argparse.Namespace) -> None:
    """Write the finished runs."""
    content = {
        "machine": this_machine("cpu").line(),
        "load": os.getloadavg(),
        "command": "python bench/tables/corrections_table.py --root clothing-small "
        f"--epochs {options.epochs} --seeds {options.seeds}",
        "table": table(records),
        "runs": list(records),
    }
    RESULT.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
