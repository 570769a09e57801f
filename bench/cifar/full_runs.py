"""CIFAR on all 50,000 images, on a CPU: accuracy, FLOPs, CPU time and the list of wrong labels of each run.

    python bench/cifar/full_runs.py --data DIR             # all runs that have no row yet; repeat the command to resume
    python bench/cifar/full_runs.py --data DIR --only sym50-cpc_awr-1
    python bench/cifar/full_runs.py --markdown             # trains nothing

DIR holds the binary files of CIFAR-10. Each run is one `fastcpc-train` on one thread, in its own process. Its row of
bench/results/cifar_runs.json has the command, the summary and the curves. The file is written after each run. Every
call prints the table and puts it into README.md and docs/experiments.md between their markers. A second table there
has what the runs show of the paper's figures.

Plain training (`cleaner.kind=none`) gets as many epochs as the training FLOPs of the run with prototypes allow. Its
list has the labels with a softmax of at most `cleaner.tau` where both networks together predict another class. CPU time
is that of the processes of a run, also of interrupted ones.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from fastcpc.engine.outputs.sample_table import CLEANING_FILE, SampleTable

BENCH = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(BENCH), str(BENCH / "tables")]
import paper
from clothing_table import list_quality
from figure import channels, svg
from harness import this_machine
from pages import DOCS, README, ROOT, put_between

FIGURE = DOCS / "images" / "cifar-cpu.svg"
RESULT = BENCH / "results" / "cifar_runs.json"
BEGIN, END = "<!-- cifar runs: bench/cifar/full_runs.py -->", "<!-- end of cifar runs -->"
CURVES = (
    "phase", "test_top1", "net1_top1", "net2_top1", "training_flops", "partition_precision", "partition_recall",
    *paper.CURVES,
)  # fmt: skip

Record = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A run: noise as in the name of the config, cleaner, seed, and settings that follow the config.

    title: the name of its row and of its folder; empty: made of noise, cleaner and seed. after: the run whose last
    checkpoint starts it. Its FLOPs and CPU time count as well.
    """

    noise: str
    cleaner: str
    seed: int = 1
    settings: tuple[str, ...] = ()
    title: str = ""
    after: str = ""

    @property
    def name(self) -> str:
        """The name of its row and of its folder."""
        return self.title or f"{self.noise}-{self.cleaner}-{self.seed}"

    @property
    def command(self) -> list[str]:
        """The command without data and folder."""
        config = f"configs/cpu/cifar10_{self.noise}.yaml"
        return ["--config", config, f"cleaner.kind={self.cleaner}", f"run.seed={self.seed}", *self.settings]


PLAIN = ("train.warmup_epochs=3", "train.batch_size=128")
SHORT = ("train.epochs=7", *PLAIN)
AFTER_26 = ("train.epochs=32", "train.warmup_epochs=26", "train.batch_size=128", "cleaner.warmup=0")
WIDE = ("model.width=48", "cpc.embedding_dim=96", "train.batch_size=128")
AFTER_10 = (*WIDE, "train.epochs=15", "train.warmup_epochs=10", "cleaner.warmup=0")
PLAIN_WIDE = ("train.warmup_epochs=3", *WIDE)
MLP = (*AFTER_10, "cpc.projector=mlp", "cpc.passes=4")
RUNS = (
    Run("sym50", "none", settings=("train.epochs=11", *PLAIN)),
    Run("sym50", "gmm_agn", settings=SHORT),
    Run("sym50", "cpc_awr", settings=SHORT),
    Run("sym50", "cpc_awr", title="sym50-none+cpc_awr-1", after="sym50-none-1"),
    Run("sym50", "none", settings=("train.epochs=26", *PLAIN), title="sym50-none26-1"),
    Run("sym50", "gmm_agn", title="sym50-none26+gmm_agn-1", after="sym50-none26-1", settings=AFTER_26),
    Run("sym50", "cpc_awr", title="sym50-none26+cpc_awr-1", after="sym50-none26-1", settings=AFTER_26),
    Run(
        "sym50", "none", title="sym50-none26+none-1", after="sym50-none26-1", settings=("train.epochs=37", *PLAIN)
    ),
    Run("sym80", "none", settings=("train.epochs=11", *PLAIN)),
    Run("sym80", "gmm_agn", title="sym80-none+gmm_agn-1", after="sym80-none-1"),
    Run("sym80", "cpc_awr", title="sym80-none+cpc_awr-1", after="sym80-none-1"),
    Run("sym80", "none", title="sym80-none+none-1", after="sym80-none-1", settings=("train.epochs=18", *PLAIN)),
    Run("sym50", "none", title="sym50-none10-1-w48", settings=("train.epochs=10", *PLAIN_WIDE)),
    Run("sym50", "cpc_awr", title="sym50-none10+cpc_awr-1-w48", after="sym50-none10-1-w48", settings=AFTER_10),
    Run("sym50", "cpc_awr", title="sym50-none10+cpc_awr_mlp-1-w48", after="sym50-none10-1-w48", settings=MLP),
    Run("sym50", "gmm_agn", title="sym50-none10+gmm_agn-1-w48", after="sym50-none10-1-w48", settings=AFTER_10),
    Run(
        "sym50", "none", title="sym50-none10+none-1-w48", after="sym50-none10-1-w48",
        settings=("train.epochs=19", *PLAIN_WIDE),
    ),
    Run("asym40", "none", title="asym40-none10-1-w48", settings=("train.epochs=10", *PLAIN_WIDE)),
    Run("asym40", "cpc_agn", title="asym40-none10+cpc_agn_mlp-1-w48", after="asym40-none10-1-w48", settings=MLP),
    Run("asym40", "gmm_agn", title="asym40-none10+gmm_agn-1-w48", after="asym40-none10-1-w48", settings=AFTER_10),
    Run(
        "asym40", "none", title="asym40-none10+none-1-w48", after="asym40-none10-1-w48",
        settings=("train.epochs=23", *PLAIN_WIDE),
    ),
)  # fmt: skip


def train(run: Run, folder: Path, data: str) -> Record:
    """Train a run, or what is missing of it, and return its row."""
    target = folder / run.name
    line = [
        sys.executable, "-m", "fastcpc.cli.train", *run.command, f"data.root={data}", f"run.dir={target}", "device=cpu",
        *([f"run.resume={folder / run.after}"] if run.after else []),
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with open(folder / f"{run.name}.log", "a", encoding="utf-8") as log:
        process = subprocess.Popen(line, cwd=ROOT, env=environment, stdout=log, stderr=log)
        _, status, used = os.wait4(process.pid, 0)
    stretches = folder / f"{run.name}.cpu_seconds"
    with stretches.open("a", encoding="utf-8") as file:
        file.write(f"{used.ru_utime + used.ru_stime}\n")
    if status:
        raise SystemExit(f"{run.name} ended with {os.waitstatus_to_exitcode(status)}; see {folder / run.name}.log")
    summary = json.loads((target / "summary.json").read_text(encoding="utf-8"))
    lines = [json.loads(text) for text in (target / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    start = f" run.resume=runs/{run.after}" if run.after else ""
    earlier = sum(one["cpu_seconds"] for one in read() if one["name"] == run.after)
    return {
        "name": run.name,
        "command": f"fastcpc-train {' '.join(run.command)} data.root=DIR run.dir=runs/{run.name}{start}",
        "machine": this_machine("cpu").line(),
        "cpu_seconds": earlier + sum(map(float, stretches.read_text(encoding="utf-8").split())),
        "list": list_quality(SampleTable.read(target / CLEANING_FILE)),
        "curves": {key: [one.get(key) for one in lines] for key in CURVES},
        "class_tests": paper.class_tests(target),
        **summary,
    }


def table(records: Sequence[Record], page: Path) -> list[str]:
    """Markdown: one line per run. README links to the JSON; the built pages have no files outside of docs/."""
    lines = [
        "| noise | channels | cleaner | seed | final top-1 | best top-1 | training FLOPs | CPU hours "
        "| AUC of the last cleaning | list: precision, recall | name |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    link = f" ([JSON]({RESULT.relative_to(ROOT)}))" if page == README else ""
    for run in RUNS:
        for record in (one for one in records if one["name"] == run.name):
            quality, cleaner = record["list"], run.name.split("-")[1]
            lines.append(
                f"| {run.noise[:-2]} {run.noise[-2:]} | {channels(record)} | {cleaner} | {run.seed} "
                f"| {record['final_top1']:.1f} "
                f"| {record['best_top1']:.1f} | {record['training_flops']:.2g} | {record['cpu_seconds'] / 3600:.2f} "
                f"| {_auc(record)} | {100 * quality['precision']:.1f} %, {100 * quality['recall']:.1f} % "
                f"| `{run.name}`{link} |"
            )
    return lines


def _auc(record: Record) -> str:
    """The AUC of the active cleaner in the last epoch, mean of both networks."""
    for name in ("auc_cpc", "auc_gmm"):
        values = record["curves"][name][-1]
        if values is not None:
            return f"{mean(values):.3f}"
    return "-"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", metavar="DIR", help="folder of the binary files of CIFAR-10")
    names = [run.name for run in RUNS]
    parser.add_argument("--only", nargs="*", choices=names, metavar="NAME", help=f"only these: {', '.join(names)}")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "cifar", help="where the runs are kept")
    parser.add_argument("--markdown", action="store_true", help="only print and insert the table of the rows so far")
    options = parser.parse_args(argv)
    if not options.markdown and not options.data:
        parser.error("--data DIR is needed, or --markdown")
    options.folder.mkdir(parents=True, exist_ok=True)
    for run in RUNS:
        wanted = not options.markdown and (options.only is None or run.name in options.only)
        if wanted and run.name not in [record["name"] for record in read()]:
            row = train(run, options.folder, os.path.abspath(options.data))
            content = {"runs": [*read(), row]}  # read again: another process may have added a row
            RESULT.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print("\n".join(table(read(), README)))
    FIGURE.write_text(svg(read()), encoding="utf-8")
    for page in (README, DOCS / "experiments.md"):
        put_between(BEGIN, END, table(read(), page), page)
    put_between(paper.BEGIN, paper.END, paper.table(read()), DOCS / "experiments.md")
    return 0


def read(file: Path = RESULT) -> list[Record]:
    """The rows so far."""
    records: list[Record] = json.loads(file.read_text(encoding="utf-8"))["runs"] if file.exists() else []
    return records


if __name__ == "__main__":
    sys.exit(main())
