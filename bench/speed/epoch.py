"""A whole epoch of a run: seconds of scoring, cleaning, training and evaluation, and the waiting share.

Runs a config (default: the paper's for CIFAR-10, on made-up images) for a warm-up epoch and a few epochs with both
networks. Checkpoints and logs are included. The figures come from the run's metrics. A ratio is a stage's share of the
epoch. The first epoch of each kind is left out, because it compiles code. Compiled runs are in epoch_compiled.json.
"""

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

import torch
from trainers import ROOT, cifar_config, made_up_cifar, scratch, trainer_of

from fastcpc.config.load import load_config

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # bench/: the modules of all benches
from harness import Check, Report, Row, Timing, arguments, this_machine

STAGES = ("score", "clean", "train", "eval")


def epochs_of(options: Any, folder: Path) -> list[dict[str, Any]]:
    """The metrics of the run's epochs after the warm-up."""
    settings = [
        f"run.dir={folder}", f"device={options.device}", f"precision={options.precision}",
        f"compile={options.compile}", f"train.epochs={2 + options.epochs}", "train.warmup_epochs=1", *options.settings,
    ]  # fmt: skip
    if options.config:
        config, dataset = load_config([options.config], settings), None
    else:
        small = [] if torch.cuda.is_available() else ["model.width=16", "train.batch_size=64", "cpc.embedding_dim=64"]
        config = cifar_config(["data.root=made-up", "noise.kind=sym", "noise.rate=0.5", *small, *settings])
        dataset = made_up_cifar(options.images, max(options.images // 5, 10))
    with trainer_of(config, dataset) as trainer:
        trainer.run()
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines][2:]


def main() -> int:
    """Print the table and write the JSON."""
    parser = arguments(__doc__)
    parser.add_argument("--config", type=Path, help=f"a config instead of {ROOT.name}'s CIFAR-10 on made-up images")
    parser.add_argument("--images", type=int, default=50_000 if torch.cuda.is_available() else 1_024)
    parser.add_argument("--epochs", type=int, default=3, help="that are counted")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--compile", default="false", choices=("false", "default", "graphs", "max-autotune"))
    parser.add_argument("settings", nargs="*", help="further key=value settings")
    options = parser.parse_args()
    name = "epoch" if options.compile == "false" else "epoch_compiled"
    report = Report(name, this_machine(options.device), options.results)
    with scratch() as folder:
        epochs = epochs_of(options, folder)
    seconds = [epoch["seconds"] for epoch in epochs]
    timings = {"epoch": spread([one["total"] for one in seconds])}
    timings |= {stage: spread([one[stage] for one in seconds]) for stage in STAGES}
    apart = max(abs(sum(one[stage] for stage in STAGES) - one["total"]) for one in seconds)
    labels = {"config": str(options.config or "CIFAR-10, made up"), "compile": options.compile}
    notes = {"data_wait": round(median(epoch["data_wait"] for epoch in epochs), 4)}
    report.add(Row(labels, Check("seconds unaccounted", apart, 1e-3), "epoch", timings, notes=notes))
    return report.finish()


def spread(values: list[float]) -> Timing:
    """Median and range of a few epochs."""
    return Timing(median(values), min(values), max(values), len(values))


if __name__ == "__main__":
    sys.exit(main())
