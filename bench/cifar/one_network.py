"""Every cleaner on the same two networks: how well each separates correct from wrong labels of CIFAR-10.

    python bench/cifar/one_network.py --data DIR --run runs/cifar/sym50-none-1

Takes the last checkpoint of a finished run of full_runs.py, scores all images once, and cleans the labels with each
cleaner. Prototypes start from scratch and learn for ``passes`` passes. All values are means of both networks. Writes
bench/results/cifar_one_network.json, a block per run, and prints it as a table.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from full_runs import RESULT
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score

from fastcpc.config.load import load_config
from fastcpc.config.schema import Config
from fastcpc.data.loaders.factory import make_loader
from fastcpc.data.sampler import sequential_batches
from fastcpc.engine.cleaning import clean_labels
from fastcpc.engine.launch import load_data
from fastcpc.engine.learner import HEAD, Learner
from fastcpc.engine.numerics import resolve_numerics
from fastcpc.engine.scoring import score_samples

ONE_NETWORK = RESULT.with_name("cifar_one_network.json")
# name of a row: settings
CLEANERS = {
    "gmm_agn": ("cleaner.kind=gmm_agn",),
    "gmm_awr": ("cleaner.kind=gmm_awr",),
    **{
        f"{kind}, {passes} passes": (f"cleaner.kind={kind}", f"cpc.passes={passes}")
        for kind in ("cpc_agn", "cpc_awr")
        for passes in (1, 4, 16)
    },
    **{
        f"{kind}, mlp, {passes} passes": (f"cleaner.kind={kind}", f"cpc.passes={passes}", "cpc.projector=mlp")
        for kind in ("cpc_agn", "cpc_awr")
        for passes in (1, 4, 16)
    },
}


def learners_of(config: Config, checkpoint: Path, num_samples: int) -> list[Learner]:
    """Both networks of a checkpoint with new prototypes."""
    found = []
    for number in (1, 2):
        one = Learner(
            number, config, resolve_numerics(config), num_classes=10, in_channels=3, image_size=32,
            num_samples=num_samples,
        )  # fmt: skip
        weights = load_file(checkpoint / f"net{number}.safetensors")
        kept = {name: value for name, value in weights.items() if not name.startswith(HEAD)}
        one.network.load_state_dict(one.network.state_dict() | kept)
        one.set_learning_rate(config.train.lr)
        one.network.eval()
        found.append(one)
    return found


def measure(run: Path, data: str) -> list[dict[str, Any]]:
    """A row per cleaner: AUC, number of labels predicted clean, and their precision, recall and accuracy."""
    checkpoint = max((run / "checkpoints").glob("epoch_*"))
    config = load_config([run / "config.yaml"], [f"data.root={data}", "device=cpu"])
    numerics = resolve_numerics(config)
    dataset, labels = load_data(config)
    assert labels.trusted is not None
    given_N, correct_N = torch.from_numpy(labels.given), labels.given == labels.trusted
    loader = make_loader(dataset.train, dataset, config.data, config.augment, numerics.device)
    learners = learners_of(config, checkpoint, len(given_N))
    batches = loader.stream(sequential_batches(len(given_N), 512), ("test",), seed=0)
    scoring = score_samples([one.network for one in learners], batches, given_N, numerics)
    rows = []
    for name, settings in CLEANERS.items():
        own = load_config([run / "config.yaml"], [f"data.root={data}", "device=cpu", "cleaner.warmup=0", *settings])
        learners = learners_of(own, checkpoint, len(given_N))
        cleaning = clean_labels(learners, scoring, given_N, own, num_classes=10, epoch=own.train.epochs)
        measures = []
        for clean_prob_N in cleaning.clean_prob_of_network:
            clean_N = (clean_prob_N > own.cleaner.tau).numpy()
            found = int((clean_N & correct_N).sum())
            measures.append(
                (
                    roc_auc_score(correct_N, clean_prob_N.numpy()),
                    clean_N.sum(),
                    found / clean_N.sum(),
                    found / correct_N.sum(),
                    (clean_N == correct_N).mean(),
                )
            )
        values = np.mean(measures, axis=0)
        keys = ("auc", "clean", "precision", "recall", "accuracy")
        rows.append({"cleaner": name} | {key: float(value) for key, value in zip(keys, values, strict=True)})
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", metavar="DIR", required=True, help="folder of the binary files of CIFAR-10")
    parser.add_argument("--run", metavar="DIR", type=Path, required=True, help="run folder of full_runs.py")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    content = json.loads(ONE_NETWORK.read_text(encoding="utf-8")) if ONE_NETWORK.exists() else {}
    content[options.run.name] = measure(options.run, options.data)
    ONE_NETWORK.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print("| cleaner | AUC | predicted clean | precision | recall |\n|---|---|---|---|---|")
    for row in content[options.run.name]:
        print(
            f"| {row['cleaner']} | {row['auc']:.3f} | {row['clean']:,.0f} | {100 * row['precision']:.1f} % "
            f"| {100 * row['recall']:.1f} % |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
