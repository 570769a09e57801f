"""The clothing table: plain training and CPC on images with 40 % asymmetric label noise, several seeds.

    python bench/tables/clothing_table.py --root /path/to/clothing-small     # 9 runs, one at a time; repeat to resume

First `fastcpc-prepare imagefolder --cache` resizes every image once; then each run is `fastcpc-train --config
configs/clothing_small.yaml cleaner.kind=KIND cleaner.guard=none run.seed=SEED` on one thread, in its own process.
Writes bench/results/clothing_table.json with the finished runs and prints the table in Markdown. When all runs are
finished, it puts the table into docs/experiments.md between its two markers. Accuracies are those of the test split.
"last 5" is the mean over the last five epochs, not the best epoch.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pages import DOCS, ROOT, put_between
from tqdm import tqdm

from fastcpc.config.load import load_config

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # bench/: the modules of all benches
from harness import this_machine

CONFIG = ROOT / "configs" / "clothing_small.yaml"
RESULT = ROOT / "bench" / "results" / "clothing_table.json"
KINDS = ("none", "cpc_agn", "cpc_awr")
SEEDS = 3
LAST = 5
BEGIN, END = "<!-- clothing table: bench/tables/clothing_table.py -->", "<!-- end of clothing table -->"

Record = dict[str, Any]


def command(module: str, *arguments: str) -> None:
    """Run a command of the package in its own process; SystemExit with the end of its output if it fails."""
    line = [sys.executable, "-m", f"fastcpc.cli.{module}", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(line)} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def prepare(root: str, folder: Path) -> Path:
    """The index of the images, with a cache of the size that the config needs."""
    index = folder / "clothing.parquet"
    side = load_config([CONFIG], []).data.resize
    if not index.with_name(f"{index.stem}.cache-{side}.parquet").is_file():
        command("prepare", "imagefolder", "--root", root, "--cache", str(side), "--out", str(index), "--jobs", "1")
    return index


def train(kind: str, seed: int, root: str, folder: Path, index: Path) -> Record:
    """Train one run unless it is finished; return its summary and the last epochs' mean accuracy."""
    target = folder / f"{kind}-{seed}"
    command(
        "train", "--config", str(CONFIG), f"data.root={root}", f"data.index={index}", "data.workers=1",
        f"cleaner.kind={kind}", "cleaner.guard=none", f"run.seed={seed}", f"run.dir={target}", "device=cpu",
    )  # fmt: skip
    summary: Record = json.loads((target / "summary.json").read_text())
    lines = [json.loads(line) for line in (target / "metrics.jsonl").read_text().splitlines()]
    accuracies = [line["test_top1"] for line in lines]
    about = {"cleaner": kind, "seed": seed, "last_top1": statistics.mean(accuracies[-LAST:]), "test_top1": accuracies}
    for name in ("partition_precision", "partition_recall", "auc_gmm", "auc_cpc"):
        about[name] = [line.get(name) for line in lines]
    return about | summary


def table(records: Sequence[Record]) -> list[str]:
    """Markdown: mean, standard deviation and each seed's mean accuracy of the last five epochs."""
    kinds = [kind for kind in KINDS if any(record["cleaner"] == kind for record in records)]
    cells: list[str] = []
    best: list[str] = []
    for kind in kinds:
        runs = [record for record in records if record["cleaner"] == kind]
        for row, key in ((cells, "last_top1"), (best, "best_top1")):
            values = [run[key] for run in runs]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            row.append(f"{statistics.mean(values):.1f} +- {spread:.1f} ({', '.join(f'{v:.1f}' for v in values)})")
    head = ["| | " + " | ".join(kinds) + " |", "|---" * (len(kinds) + 1) + "|"]
    return [*head, f"| mean of the last {LAST} epochs | " + " | ".join(cells) + " |",
            "| best epoch | " + " | ".join(best) + " |"]  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--root", required=True, help="folder of the images: train/, validation/ and test/ with classes"
    )
    parser.add_argument("--seeds", type=int, default=SEEDS, help="seeds 1..N; the page's table takes 3")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "clothing_table", help="where the runs are kept")
    options = parser.parse_args(argv)
    options.folder.mkdir(parents=True, exist_ok=True)
    index = prepare(options.root, options.folder)
    runs = [(kind, seed) for seed in range(1, options.seeds + 1) for kind in KINDS]
    records: list[Record] = []
    for kind, seed in tqdm(runs, unit="run"):
        records.append(train(kind, seed, options.root, options.folder, index))
        whole = len(records) == len(KINDS) * SEEDS
        content = {
            "machine": this_machine("cpu").line(),
            "load": os.getloadavg(),
            "command": "python bench/tables/clothing_table.py --root clothing-small",
            "complete": whole,
            "table": table(records),
            "runs": records,
        }
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    lines = table(records)
    print("\n".join(lines))
    if whole:
        put_between(BEGIN, END, lines, DOCS / "experiments.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
