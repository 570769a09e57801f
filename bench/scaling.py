"""How much the ranks of a run send each other: counted with 1, 2 and 4 gloo processes, computed for GPUs.

    python bench/scaling.py            # counts, checks and prints; writes results/scaling.json
    python bench/scaling.py --table    # the computed table alone, as in docs/scaling.md
    python bench/scaling.py --images data/clothing-small    # how far 2 and 4 ranks are from 1 on a folder of images

A count is valid only if the runs agree. In every epoch the labelled sets have the same sizes as with one process. The
gradients have exactly the computed volume. The bench measures no time: loopback on one machine does not predict a
cluster.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support" / "runs"))

from several_ranks import on_ranks
from small_run import metrics, small_config, weights

from fastcpc.config.load import load_config, to_yaml

# These values are assumed, not measured. Images per second of one GPU are for ResNet-50 at 224 pixels in bf16: forward
# and backward together, and forward alone. Bytes per second that a rank sends are inside a node of 8 and beyond it.
TRAIN_RATE, FORWARD_RATE = 2_500.0, 8_000.0
INSIDE, BEYOND = 300e9, 40e9

# Runs of configs/clothing_small.yaml. "short" ends before rounding errors grow, so ranks must agree. "longer" has three
# epochs (warm-up, mixture, prototypes) at a larger learning rate, and shows how far ranks diverge.
IMAGE_RUNS = {
    "short": (
        "data.subset=320", "data.feed=torch", "data.workers=1", "train.epochs=2", "train.warmup_epochs=1",
        "train.lr_drop_epoch=2", "train.lr=1e-4", "cleaner.warmup=0", "semisup.batches_per_epoch=5",
    ),
    "longer": (
        "data.subset=640", "data.feed=torch", "data.workers=1", "train.epochs=3", "train.warmup_epochs=1",
        "train.lr_drop_epoch=2", "train.lr=0.001", "cleaner.warmup=0.3", "semisup.batches_per_epoch=10",
    ),
}  # fmt: skip
PROBABILITIES = ("q_gmm_1", "q_gmm_2", "q_cpc_1", "q_cpc_2", "clean_probability", "p_given")


@dataclass(frozen=True)
class Case:
    """A ResNet-50 on web images: labelled_half_only, 64 labelled samples per rank and step, half predicted clean."""

    num_ranks: int
    num_samples: float
    own_batch: int = 64
    parameters: float = 25.6e6
    norm_channels: int = 26_560
    image_bytes: float = 3 * 224 * 224 * 4
    feature_dim: int = 2048
    embedding_dim: int = 128
    num_classes: int = 1000

    @property
    def steps(self) -> float:
        """Steps of both networks in an epoch."""
        return 2 * self.num_samples / 2 / (self.own_batch * self.num_ranks)

    def sent(self) -> dict[str, float]:
        """Bytes that a rank sends in an epoch, by purpose."""
        others, ring = self.num_ranks - 1, 2 * (self.num_ranks - 1) / self.num_ranks
        head = self.embedding_dim * (self.feature_dim + 1 + self.num_classes)
        prototype_steps = 2 * self.num_samples / (self.own_batch * self.num_ranks)
        return {
            "gradients": self.steps * ring * 4 * self.parameters,
            "mixup": self.steps
            * 2
            * self.own_batch
            * (self.image_bytes + 4 * self.num_classes)
            * others
            / self.num_ranks,
            "batchnorm": self.steps * 8 * self.norm_channels * (5 * others + ring),
            "prior": self.steps * 4 * self.num_classes * others,
            "scores": others / self.num_ranks * self.num_samples * (3 * 16 + 2 * 4),
            "prototypes": prototype_steps * ring * 4 * head,
        }

    def efficiency(self, sync_batchnorm: bool) -> float:
        """Time of the networks' arithmetic divided by the time of arithmetic and all messages in sequence."""
        rate = INSIDE if self.num_ranks <= 8 else BEYOND
        own = self.num_samples / self.num_ranks
        trained, guessed = 2 * own, 2 * own * 3  # of both networks: half of all, two views; six guesses a pair
        seconds = trained / TRAIN_RATE + guessed / FORWARD_RATE + 2 * own / FORWARD_RATE
        sent = self.sent()
        total = sum(volume for name, volume in sent.items() if sync_batchnorm or name != "batchnorm")
        return seconds / (seconds + total / rate)

    def memory(self) -> tuple[float, float]:
        """Bytes on a rank: the values kept for every sample, and the features of the rank's own samples."""
        of_every_sample = 3 * 20 + 2 * (4 + 5 + 4) + 8 + 3 * 12 * 2
        return self.num_samples * of_every_sample, 2 * 2 * self.feature_dim * self.num_samples / self.num_ranks


def table() -> str:
    """The computed table of docs/scaling.md."""
    lines = [
        "| GPUs | samples | gradients | MixUp | BatchNorm | prior | scores | prototypes | "
        "memory: state of all samples, own features | computed efficiency, BatchNorm over all ranks / per rank |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for num_samples in (1e8, 1e9):
        for num_ranks in (8, 64, 512):
            case = Case(num_ranks, num_samples)
            volumes = " | ".join(_size(volume) for volume in case.sent().values())
            state, features = case.memory()
            lines.append(
                f"| {num_ranks} | {num_samples:.0e} | {volumes} | {_size(state)}, {_size(features)} | "
                f"{100 * case.efficiency(True):.0f} % / {100 * case.efficiency(False):.0f} % |"
            )
    return "\n".join(lines)


def count() -> list[dict[str, Any]]:
    """The small run of the tests on 1, 2 and 4 ranks: what a rank sends, and whether the runs agree."""
    rows: list[dict[str, Any]] = []
    with TemporaryDirectory(prefix="fastcpc-scaling-") as name:
        folder = Path(name)
        batch_size = small_config(folder).train.batch_size
        for num_ranks in (1, 2, 4):
            run, target = folder / str(num_ranks), folder / f"{num_ranks}.json"
            on_ranks(num_ranks, "rank_runs:count_traffic", run, target)
            lines, network = metrics(run), weights(run)[0]
            trained = sum(w.numel() for key, w in network.items() if _is_trained(key))
            labelled = [line["labelled"] for line in lines]
            steps = sum(-(-size // batch_size) for sizes in labelled for size in sizes)
            rows.append(
                {
                    "ranks": num_ranks,
                    "epochs": len(lines),
                    "steps": steps,
                    "sent_by_rank_0": json.loads(target.read_text()),
                    "gradients_computed": steps * (2 * (num_ranks - 1) * trained * 4 // num_ranks),
                    "labelled": labelled,
                }
            )
    return rows


def compare_images(root: Path, kind: str) -> dict[str, Any]:
    """A run of IMAGE_RUNS on a folder of images with 1, 2 and 4 ranks: the largest difference from one rank."""
    rows: list[dict[str, Any]] = []
    settings = [f"data.root={root.resolve()}", "cleaner.guard=none", *IMAGE_RUNS[kind]]
    with TemporaryDirectory(prefix="fastcpc-scaling-") as name:
        runs = {num_ranks: Path(name) / str(num_ranks) for num_ranks in (1, 2, 4)}
        for num_ranks, run in runs.items():
            config = load_config([ROOT / "configs" / "clothing_small.yaml"], [*settings, f"run.dir={run}"])
            file = Path(name) / f"{num_ranks}.yaml"
            file.write_text(to_yaml(config))
            on_ranks(num_ranks, "rank_runs:train_file", file)
            lines, one = metrics(run), runs[1]
            rows.append(
                {
                    "ranks": num_ranks,
                    "labelled": [line["labelled"] for line in lines],
                    "test_top1": [line["test_top1"] for line in lines],
                    "same_partitions": _columns(run, ["is_clean"]).equals(_columns(one, ["is_clean"])),
                    "probabilities_differ_by": _farthest(_columns(run, PROBABILITIES), _columns(one, PROBABILITIES)),
                    "weights_differ_by": max(
                        float((a[key] - b[key]).abs().max())
                        for a, b in zip(weights(run), weights(one), strict=True)
                        for key in a
                        if a[key].is_floating_point()
                    ),
                }
            )
    return {"settings": list(IMAGE_RUNS[kind]), "runs": rows}


def _columns(run: Path, names: Sequence[str]) -> pa.Table:
    return pq.read_table(run / "clean_probabilities.parquet", columns=list(names))


def _farthest(one: pa.Table, other: pa.Table) -> float:
    pairs = ((one[name].to_numpy(), other[name].to_numpy()) for name in one.column_names)
    return max(float(abs(a - b).max()) for a, b in pairs)


def main() -> int:
    """Print the table, and count or compare as requested."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="the computed table alone")
    parser.add_argument("--images", type=Path, metavar="ROOT", help="compare runs on this folder of images instead")
    options = parser.parse_args()
    target = ROOT / "bench" / "results" / "scaling.json"
    result: dict[str, Any] = json.loads(target.read_text()) if target.exists() else {}
    failed = False
    if options.images:
        result["images"] = {kind: compare_images(options.images, kind) for kind in IMAGE_RUNS}
        for kind, compared in result["images"].items():
            for row in compared["runs"]:
                failed |= kind == "short" and not row["same_partitions"]
                print(kind, row)
    else:
        print(table())
        if options.table:
            return 0
        result["digits"] = rows = count()
        for row in rows:
            agrees = row["labelled"] == rows[0]["labelled"]
            exact = row["sent_by_rank_0"].get("gradients", 0) == row["gradients_computed"]
            failed |= not (agrees and exact)
            print(f"{row['ranks']} ranks: {'agrees' if agrees and exact else 'FAIL'}; bytes {row['sent_by_rank_0']}")
    target.write_text(json.dumps(result, indent=2) + "\n")
    return int(failed)


def _is_trained(key: str) -> bool:
    return not key.startswith("head.") and not key.endswith(("running_mean", "running_var", "num_batches_tracked"))


def _size(num_bytes: float) -> str:
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.3g} {unit}"
    return f"{num_bytes:.0f} B"


if __name__ == "__main__":
    sys.exit(main())
