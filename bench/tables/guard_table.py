"""The guard table: what a run costs where few labels are wrong, and what it finds where many are.

    python bench/tables/guard_table.py                                  # digits; repeat the command to resume
    python bench/tables/guard_table.py --clothing /path/to/clothing-small   # the rows of clothing images too
    python bench/tables/guard_table.py --embeddings DIR    # embeddings too: DIR/clothing_train.npy and so on
    python bench/tables/guard_table.py --only "digits, sym 10 %" --methods "cpc_awr, guard" --seeds 4 5   # these runs

Each run is one `fastcpc-train` on one thread, in its own process. Its row of bench/results/guard_table.json has the
command. The file is written after each run, and a run whose row is there is skipped. A row from another machine than
the first one has `machine`. A row with `source` is from the
JSON files of other tables, which the same commands wrote. `--markdown` trains nothing. Every
call prints both tables and puts them into docs/experiments.md between their markers.

The list of a run is its suspects (clean_probabilities.parquet). Plain training (`cleaner.kind=none`) has no cleaner.
There a label is suspected when its softmax is at most `cleaner.tau` and both networks together predict another class.
F1 is the harmonic mean of the list's precision and recall. Without wrong labels it has no value; the tables then show
the number of suspects alone.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clothing_table import command, list_quality, prepare
from pages import DOCS, ROOT, put_between
from tqdm import tqdm

from fastcpc.engine.outputs.sample_table import CLEANING_FILE, SampleTable

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # bench/: the modules of all benches
from harness import this_machine

RESULT = ROOT / "bench" / "results" / "guard_table.json"
PAGE = DOCS / "experiments.md"
BEGIN, END = "<!-- guard table: bench/tables/guard_table.py -->", "<!-- end of guard table -->"
LAST = 10  # epochs of the mean accuracy

# row of the tables: config and settings
NOISE = {
    "digits, 0 %": ("digits_sym50", "noise.kind=none", "noise.rate=0"),
    **{f"digits, sym {rate} %": ("digits_sym50", f"noise.rate={rate / 100:g}") for rate in (1, 3, 5, 10, 20, 50)},
    "digits, sym 80 %": ("digits_sym80",),
    "digits, asym 10 %": ("digits_asym40", "noise.rate=0.1"),
    "digits, asym 40 %": ("digits_asym40",),
    "clothing, 0 %": ("clothing_small", "noise.kind=none", "noise.pairs=", "noise.rate=0"),
    **{
        f"clothing, sym {rate} %": ("clothing_small", "noise.kind=sym", "noise.pairs=", f"noise.rate={rate / 100}")
        for rate in (1, 3, 5, 10, 20, 50, 80)
    },
    "clothing, asym 10 %": ("clothing_small", "noise.rate=0.1"),
    "clothing, asym 40 %": ("clothing_small",),
    "embeddings, 0 %": ("embeddings",),
    **{
        f"embeddings, {kind} {rate} %": ("embeddings", f"noise.kind={long}", f"noise.rate={rate / 100}")
        for kind, long, rates in (("sym", "sym", (1, 3, 5, 10, 20, 50, 80)), ("asym", "asym_next", (3, 10, 20, 40)))
        for rate in rates
    },
}
# column of the tables: cleaner.kind and cleaner.guard
METHODS = {
    "none": ("none", "none"),
    "gmm_agn": ("gmm_agn", "none"),
    "gmm_agn, guard": ("gmm_agn", "auto"),
    "gmm_awr": ("gmm_awr", "none"),
    "cpc_awr": ("cpc_awr", "none"),
    "cpc_awr, guard": ("cpc_awr", "auto"),
    "confusion, guard": ("confusion", "auto"),
    "cpc_confusion, guard": ("cpc_confusion", "auto"),
}
CLOTHING = tuple(name for name in NOISE if name.startswith("clothing"))
EMBEDDINGS = tuple(name for name in NOISE if name.startswith("embeddings"))
LOW = ("digits, 0 %", "digits, sym 3 %", "digits, sym 10 %")
HIGH = ("digits, sym 50 %", "digits, sym 80 %", "digits, asym 40 %")
BETWEEN = ("digits, sym 1 %", "digits, sym 5 %", "digits, sym 20 %", "digits, asym 10 %")
GUARDED = ("none", "cpc_awr, guard", "confusion, guard")
ON_EMBEDDINGS = ("none", "gmm_agn", "gmm_agn, guard", "cpc_awr", "cpc_awr, guard", "confusion, guard")
FILES = {"embeddings": "train", "labels": "train_labels", "test_embeddings": "test", "test_labels": "test_labels"}

Record = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A run: a row and a column of the tables, and the seed."""

    noise: str
    method: str
    seed: int

    @property
    def settings(self) -> list[str]:
        """What follows ``--config CONFIG``, without data and run folder."""
        kind, guard = METHODS[self.method]
        return [*NOISE[self.noise][1:], f"cleaner.kind={kind}", f"cleaner.guard={guard}", f"run.seed={self.seed}"]

    @property
    def config(self) -> str:
        """The config file, from the root of the repository."""
        return f"configs/{NOISE[self.noise][0]}.yaml"

    @property
    def folder(self) -> str:
        """The name of its run folder."""
        return "-".join("".join(c if c.isalnum() else " " for c in f"{self.noise} {self.method}").split()) + (
            f"-{self.seed}"
        )


def planned(with_clothing: bool, with_embeddings: bool) -> Iterator[Run]:
    """All runs, the most needed first."""
    images, vectors = CLOTHING if with_clothing else (), EMBEDDINGS if with_embeddings else ()
    blocks = [
        (images[:5], ("none", "cpc_awr, guard"), 1),
        (vectors, ("none", "cpc_awr", "cpc_awr, guard", "confusion, guard"), 1),
        (LOW, ("none", "cpc_awr, guard"), 3),
        (BETWEEN, GUARDED, 1),
        (images, ("none", "cpc_awr, guard"), 1),
        (LOW, GUARDED, 5),
        (vectors, ON_EMBEDDINGS, 1),
        (images, ("gmm_agn", "cpc_awr", "confusion, guard"), 1),
        (BETWEEN, GUARDED, 3),
    ]
    seen = set()
    for noises, methods, seeds in blocks:
        for run in (Run(noise, method, seed) for seed in range(1, seeds + 1) for noise in noises for method in methods):
            if run not in seen:
                seen.add(run)
                yield run


def chosen(rows: Sequence[str], methods: Sequence[str], seeds: Sequence[int]) -> Iterator[Run]:
    """The runs of ``--only``, also such that no block plans; all rows of a seed before the next seed."""
    return (Run(noise, method, seed) for seed in seeds for noise in rows for method in methods)


def train(run: Run, folder: Path, data: Sequence[str]) -> Record:
    """Train a run and return its row. data: settings of the machine, which are not part of the row's command."""
    target = folder / run.folder
    command(
        "train", "--config", str(ROOT / run.config), *run.settings, *data, f"run.dir={target}", "device=cpu"
    )  # fmt: skip
    accuracies = [json.loads(line)["test_top1"] for line in (target / "metrics.jsonl").read_text().splitlines()]
    return {
        "noise": run.noise,
        "method": run.method,
        "seed": run.seed,
        "last10_top1": statistics.mean(accuracies[-LAST:]),
        "final_top1": accuracies[-1],
        **list_quality(SampleTable.read(target / CLEANING_FILE)),
        "command": f"fastcpc-train --config {run.config} " + " ".join(run.settings),
    }


def tables(records: Sequence[Record]) -> list[str]:
    """Markdown: accuracy, then the list. Each cell is a mean over the seeds, with their number where it is not 5."""
    methods = [name for name in METHODS if any(record["method"] == name for record in records)]
    head = ["| | " + " | ".join(methods) + " |", "|---" * (len(methods) + 1) + "|"]
    accuracy, lists = [*head], [*head]
    for noise in NOISE:
        cells = {name: [one for one in records if (one["noise"], one["method"]) == (noise, name)] for name in methods}
        if any(cells.values()):
            accuracy.append(f"| {noise} | " + " | ".join(_accuracy(runs) for runs in cells.values()) + " |")
            lists.append(f"| {noise} | " + " | ".join(_list(runs) for runs in cells.values()) + " |")
    return ["Accuracy:", "", *accuracy, "", "List, F1 / suspects / wrong labels:", "", *lists]


def _accuracy(runs: Sequence[Record]) -> str:
    if not runs:
        return ""
    values = [run["last10_top1"] for run in runs]
    return f"{statistics.mean(values):.2f} ({min(values):.2f}-{max(values):.2f}, n = {len(values)})"


def _list(runs: Sequence[Record]) -> str:
    runs = [run for run in runs if "suspected" in run]  # rows of other tables have accuracies alone
    if not runs:
        return ""
    suspected, wrong = (statistics.mean(run[name] for run in runs) for name in ("suspected", "wrong"))
    f1 = [run["f1"] for run in runs]
    return f"{'-' if None in f1 else f'{statistics.mean(f1):.3f}'} / {suspected:.0f} / {wrong:.0f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clothing", metavar="DIR", default="", help="folder of clothing-small: its rows too")
    parser.add_argument(
        "--embeddings", metavar="DIR", default="", help="folder of clothing_train.npy and so on: its rows too"
    )
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "guard_table", help="where the runs are kept")
    parser.add_argument("--only", nargs="+", choices=list(NOISE), metavar="ROW", help="run these rows only")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(GUARDED), help="columns of --only")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1], help="seeds of --only")
    parser.add_argument("--markdown", action="store_true", help="only print and insert the tables of the rows so far")
    options = parser.parse_args(argv)
    before: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {"machine": "", "runs": []}
    records: list[Record] = before["runs"]
    first_machine: str = before["machine"]
    done = {Run(record["noise"], record["method"], record["seed"]) for record in records}
    if options.only:
        runs = chosen(options.only, options.methods, options.seeds)
    else:
        runs = planned(bool(options.clothing), bool(options.embeddings))
    missing = [] if options.markdown else [run for run in runs if run not in done]
    options.folder.mkdir(parents=True, exist_ok=True)
    for run in tqdm(missing, unit="run"):
        data = []
        if run.noise in CLOTHING:
            index = prepare(options.clothing, options.folder)
            data = [f"data.root={options.clothing}", f"data.index={index}", "data.workers=1"]
        if run.noise in EMBEDDINGS:
            data = [f"data.{key}={options.embeddings}/clothing_{name}.npy" for key, name in FILES.items()]
        machine = this_machine("cpu")
        record = train(run, options.folder, data)
        is_other = bool(first_machine) and not first_machine.startswith(machine.name)
        records.append({**record, "machine": machine.line()} if is_other else record)
        content = {
            "machine": first_machine or machine.line(),
            "command": "python bench/tables/guard_table.py --clothing clothing-small --embeddings DIR",
            "runs": records,
        }
        RESULT.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    lines = tables(records)
    print("\n".join(lines))
    put_between(BEGIN, END, lines, PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
