"""Suspected label errors compared with true labels: fastcpc's rule, and cleanlab's on the same predictions.

    python bench/tables/suspects.py                   # digits, three kinds of noise, three seeds: 9 runs of a minute
    python bench/tables/suspects.py --cifar10 /path/to/cifar   # and one run of configs/cifar10_small.yaml

Each run is `fastcpc-train --config configs/CONFIG.yaml cleaner.guard=none run.seed=SEED`, in its own process; a
finished run is reused. Precision: share of the suspected labels that are wrong. Recall: share of the wrong labels
that are suspected. "at recall 95 %": precision of the ranking where it has found 95 % of the wrong labels. cleanlab's
find_label_issues sees labels.npz and pred_probs.npy of the same run, so both rules use the same two networks. Writes
bench/results/suspects.json, prints the table, and puts it into docs/results.md.
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

import cleanlab
import numpy as np
from numpy.typing import NDArray
from pages import DOCS, ROOT, put_between
from sklearn.metrics import average_precision_score

from fastcpc.report.results.run import read_pred_probs, read_run
from fastcpc.report.results.samples import read_samples
from fastcpc.report.results.suspects import find_suspects

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # bench/: the modules of all benches
from harness import this_machine

RESULT = ROOT / "bench" / "results" / "suspects.json"
DIGITS = ("digits_sym50", "digits_asym40", "digits_sym80")
CIFAR = "cifar10_small"
SEEDS = (1, 2, 3)
FILTERS = ("prune_by_noise_rate", "confident_learning")  # cleanlab's default, and its other well-known one
RULES = ("ours", *(f"cleanlab, {name}" for name in FILTERS))
BEGIN, END = "<!-- suspects table: bench/tables/suspects.py -->", "<!-- end of suspects table -->"


def train(config: str, seed: int, folder: Path, root: str) -> Path:
    """The folder of a finished run, which is trained now unless it exists."""
    target = folder / f"{config}-{seed}"
    if (target / "summary.json").exists() and (target / "pred_probs.npy").exists():
        return target
    command = [
        sys.executable, "-m", "fastcpc.cli.train", "--config", str(ROOT / "configs" / f"{config}.yaml"),
        "cleaner.guard=none", f"run.seed={seed}", f"run.dir={target}", "device=cpu",
        *([f"data.root={root}"] if config == CIFAR else []),
    ]  # fmt: skip
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}")
    return target


def measure(path: Path) -> dict[str, Any]:
    """Precision and recall of each rule on one run, and how well the scores rank."""
    run = read_run(path)
    samples, probs_NK = read_samples(run), np.asarray(read_pred_probs(run))
    assert samples.true_N is not None
    wrong_N = samples.given_N != samples.true_N
    suspects = find_suspects(run, samples)
    issues = {"ours": suspects.is_issue_N}
    for name in FILTERS:
        issues[f"cleanlab, {name}"] = cleanlab.filter.find_label_issues(
            samples.given_N, probs_NK, filter_by=name, n_jobs=1
        )
    scores = {
        "label_score": suspects.label_score_N,
        "clean_probability": samples.clean_prob_N,
        "cleanlab, normalized_margin": cleanlab.rank.get_label_quality_scores(
            samples.given_N, probs_NK, method="normalized_margin"
        ),
    }
    assert run.summary is not None and suspects.quality is not None
    return {
        "config": run.config.run.name,
        "seed": run.config.run.seed,
        "num_samples": len(samples),
        "num_wrong": int(wrong_N.sum()),
        "test_top1": run.summary["final_top1"],
        "suggestion_accuracy": suspects.quality.suggestion_accuracy,
        "rules": {name: precision_recall(issue_N, wrong_N) for name, issue_N in issues.items()},
        "rankings": {name: ranking(score_N, wrong_N) for name, score_N in scores.items()},
    }


def precision_recall(issue_N: NDArray[np.bool_], wrong_N: NDArray[np.bool_]) -> dict[str, float]:
    """Shares in [0, 1]; 0 if there are no suspects."""
    found = float((issue_N & wrong_N).sum())
    return {
        "num_suspected": int(issue_N.sum()),
        "precision": found / max(1, int(issue_N.sum())),
        "recall": found / int(wrong_N.sum()),
    }


def ranking(score_N: NDArray[Any], wrong_N: NDArray[np.bool_]) -> dict[str, float]:
    """Of a score with 1 = good: average precision of the wrong labels, precision where recall reaches 95 %."""
    order_N = np.argsort(score_N, kind="stable")
    found_N = np.cumsum(wrong_N[order_N])
    first = int(np.searchsorted(found_N, np.ceil(0.95 * wrong_N.sum())))
    return {
        "average_precision": float(average_precision_score(wrong_N, -np.asarray(score_N))),
        "precision_at_recall_95": float(found_N[first] / (first + 1)),
    }


def table(records: Sequence[dict[str, Any]]) -> list[str]:
    """Markdown: precision / recall in percent of each rule, mean over the seeds, and of our ranking at recall 95 %."""
    lines = ["| | wrong labels | " + " | ".join(RULES) + " | ours, at recall 95 % |", "|---" * (len(RULES) + 3) + "|"]
    for config in dict.fromkeys(record["config"] for record in records):
        own = [record for record in records if record["config"] == config]
        rate = 100 * statistics.mean(record["num_wrong"] / record["num_samples"] for record in own)
        cells = [
            " / ".join(
                f"{100 * statistics.mean(record['rules'][rule][name] for record in own):.1f}"
                for name in ("precision", "recall")
            )
            for rule in RULES
        ]
        at_95 = statistics.mean(record["rankings"]["label_score"]["precision_at_recall_95"] for record in own)
        lines.append(f"| {config} | {rate:.1f} % | " + " | ".join(cells) + f" | {100 * at_95:.1f} |")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cifar10", metavar="DIR", default="", help="also CIFAR-10 from this folder")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "suspects", help="where the runs are kept")
    options = parser.parse_args(argv)
    wanted = [(config, seed) for config in DIGITS for seed in SEEDS] + ([(CIFAR, 1)] if options.cifar10 else [])
    records = [measure(train(config, seed, options.folder, options.cifar10)) for config, seed in wanted]
    lines = table(records)
    print("\n".join(lines))
    command = "python bench/tables/suspects.py" + (" --cifar10 DIR" if options.cifar10 else "")
    content = {
        "machine": this_machine("cpu").line(),
        "command": command,
        "cleanlab": cleanlab.__version__,
        "table": lines,
        "runs": records,
    }
    RESULT.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    put_between(BEGIN, END, lines, DOCS / "results.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
