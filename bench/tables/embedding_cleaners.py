"""Table 3 of the paper on embeddings: which cleaner is best on CIFAR-100 with 90 % symmetric noise, several seeds.

    python bench/tables/embedding_cleaners.py --embeddings DIR     # 25 runs; repeat the command to resume

DIR has cifar100_train.npy, cifar100_train_labels.npy, and the same with ``test``, as bench/audit.py needs them. Each
run is one `fastcpc-train --config embeddings` of two linear heads on one thread, in its own process. Only cleaner and
seed differ. bench/results/embedding_cleaners.json is written after each run, and a run whose row is there is skipped.
Every call prints the table and puts it into docs/experiments.md between its markers. `--markdown` trains nothing.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clothing_table import command
from pages import DOCS, ROOT, put_between
from tqdm import tqdm

from fastcpc.report.paper.published import CELLS

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # bench/: the modules of all benches
from harness import this_machine

RESULT = ROOT / "bench" / "results" / "embedding_cleaners.json"
PAGE = DOCS / "experiments.md"
BEGIN, END = "<!-- embedding cleaners: bench/tables/embedding_cleaners.py -->", "<!-- end of embedding cleaners -->"
KINDS = ("none", "gmm_agn", "gmm_awr", "cpc_agn", "cpc_awr")
NOISE, RATE = "sym", 0.9
SETTINGS = (
    f"noise.kind={NOISE}",
    f"noise.rate={RATE}",
    "cleaner.guard=none",
    "train.epochs=6",
    "train.warmup_epochs=1",
    "train.lr_drop_epoch=4",
    "train.batch_size=512",
    "train.lr=0.008",
)
FILES = {"embeddings": "train", "labels": "train_labels", "test_embeddings": "test", "test_labels": "test_labels"}

Record = dict[str, Any]


def train(kind: str, seed: int, embeddings: Path, folder: Path) -> Record:
    """Train a run and return its row. Its command leaves out the settings of the machine."""
    target, settings = folder / f"{kind}-{seed}", [*SETTINGS, f"cleaner.kind={kind}", f"run.seed={seed}"]
    data = [f"data.{key}={embeddings}/cifar100_{name}.npy" for key, name in FILES.items()]
    command("train", "--config", "embeddings", *settings, *data, f"run.dir={target}", "device=cpu")
    lines = [json.loads(line) for line in (target / "metrics.jsonl").read_text().splitlines()]
    about: Record = {"cleaner": kind, "seed": seed}
    for name in ("test_top1", "prototype_top1", "auc_gmm", "auc_cpc", "partition_precision", "partition_recall"):
        about[name] = [line.get(name) for line in lines]
    about["seconds"] = round(sum(line["seconds"]["total"] for line in lines), 1)
    return about | {"command": "fastcpc-train --config embeddings " + " ".join(settings)}


def auc(run: Record, epoch: int) -> float | None:
    """AUC of the run's own cleaner in an epoch, mean of both networks; None: no cleaner, or none in this epoch."""
    found = run["auc_cpc" if run["cleaner"].startswith("cpc") else "auc_gmm"][epoch]
    return None if found is None else statistics.mean(found)


def table(records: Sequence[Record]) -> list[str]:
    """Markdown: accuracies and AUC per cleaner, mean +- standard deviation over the seeds, and the paper's accuracy."""
    columns = {kind: [run for run in records if run["cleaner"] == kind] for kind in KINDS}
    place = ("cifar100", NOISE, RATE)
    paper = {cell.cleaner: cell.top1 for cell in CELLS if (cell.data, cell.noise, cell.rate) == place}
    rows = {
        "accuracy, last epoch": [_spread([run["test_top1"][-1] for run in runs], 1) for runs in columns.values()],
        "AUC, first cleaning": [_spread([auc(run, 1) for run in runs], 3) for runs in columns.values()],
        "AUC, last epoch": [_spread([auc(run, -1) for run in runs], 3) for runs in columns.values()],
        "seeds": [str(len(runs)) for runs in columns.values()],
        "paper, accuracy (a network trained on images)": [
            f"{paper[kind]:.1f}" if kind in paper else "-" for kind in KINDS
        ],
    }
    head = ["| | " + " | ".join(KINDS) + " |", "|---" * (len(KINDS) + 1) + "|"]
    return [*head, *(f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows.items())]


def _spread(values: Sequence[float | None], digits: int) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    deviation = f" +- {statistics.stdev(known):.{digits}f}" if len(known) > 1 else ""
    return f"{statistics.mean(known):.{digits}f}{deviation}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--embeddings", type=Path, help="folder with cifar100_train.npy and so on")
    parser.add_argument("--seeds", type=int, default=5, help="seeds 1..N")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "embedding_cleaners", help="of the runs")
    parser.add_argument("--markdown", action="store_true", help="only print and insert the table of the rows so far")
    options = parser.parse_args(argv)
    if not options.embeddings and not options.markdown:
        parser.error("--embeddings is needed for training")
    records: list[Record] = json.loads(RESULT.read_text())["runs"] if RESULT.exists() else []
    done = {(record["cleaner"], record["seed"]) for record in records}
    wanted = [(kind, seed) for seed in range(1, options.seeds + 1) for kind in KINDS]
    for kind, seed in tqdm([] if options.markdown else [run for run in wanted if run not in done], unit="run"):
        records.append(train(kind, seed, options.embeddings, options.folder))
        content = {
            "machine": this_machine("cpu").line(),
            "command": "python bench/tables/embedding_cleaners.py --embeddings DIR",
            "runs": records,
        }
        RESULT.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    lines = table(records)
    print("\n".join(lines))
    put_between(BEGIN, END, lines, PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
