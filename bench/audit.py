"""Wrong labels from frozen embeddings: ``fastcpc.audit``, cleanlab and kNN voting on the same embeddings and noise.

    python bench/audit.py --embeddings DIR --names cifar10 clothing --rows sym0.2 asym0.4 --seeds 1 2 3

DIR has NAME_train.npy, NAME_train_labels.npy, and the same with ``test``, as NumPy arrays. Each method runs in turn on
each row. The JSON is written after each row, and rows that it already has are skipped. ``cpu_seconds`` are those of the
process, ``load`` is the load average. Peers: cleanlab's usual recipe (5-fold logistic regression, find_label_issues),
Datalab on features, and votes of 50 neighbours. ``--scaling`` measures seconds and peak memory over N on synthetic
embeddings in a memory map.
"""

import argparse
import importlib.util
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from harness import RESULTS, this_machine
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.neighbors import NearestNeighbors

from fastcpc import audit
from fastcpc.auditing.true_metrics import measure

ROWS = ("none0", "sym0.03", "sym0.1", "sym0.2", "sym0.5", "sym0.8", "asym0.1", "asym0.4")
CIFAR10_PAIRS = {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}
NEIGHBOURS = 50
Array = NDArray[Any]


class Problem(NamedTuple):
    """Embeddings (N, D), given and true labels (N,), the number of classes, and test data for the accuracy."""

    values_ND: Array
    given_N: Array
    true_N: Array
    classes: int
    test_MD: Array
    test_M: Array
    seed: int


def add_noise(true_N: Array, row: str, classes: int, seed: int) -> Array:
    """Given labels: symN draws a share of labels again, asymN replaces a share by the similar or the next class."""
    kind, rate = row.rstrip("0123456789."), float(row.lstrip("abcdefghijklmnopqrstuvwxyz"))
    rng, given_N = np.random.default_rng(seed), true_N.copy()
    chosen = rng.permutation(len(true_N))[: int(rate * len(true_N))]
    if kind == "sym":
        given_N[chosen] = rng.integers(0, classes, len(chosen))
    elif kind == "asym":
        target = [CIFAR10_PAIRS.get(k, k) if classes == 10 else (k + 1) % classes for k in range(classes)]
        given_N[chosen] = np.array(target)[true_N[chosen]]
    return given_N


def ours(problem: Problem) -> dict[str, float | bool]:
    """``fastcpc.audit``."""
    result = audit(problem.values_ND, problem.given_N, seed=problem.seed, true_labels=problem.true_N)
    low, high = result.noise_interval
    figures: dict[str, float | bool] = dict(result.true_metrics)
    figures |= {"estimated_rate": result.noise_rate, "low": low, "high": high, "has_evidence": result.has_evidence}
    figures["accuracy"] = float((result.predict(problem.test_MD) == problem.test_M).mean())
    return figures


def cleanlab_usual(problem: Problem) -> dict[str, float | bool]:
    """Out-of-sample probabilities of 5-fold logistic regression, self-confidence, and find_label_issues."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    mean_D, std_D = problem.values_ND.mean(0, dtype=np.float64), problem.values_ND.std(0, dtype=np.float64) + 1e-6
    values_ND = ((problem.values_ND - mean_D) / std_D).astype(np.float32)
    model = LogisticRegression(C=0.01, max_iter=100)
    prob_NK = cross_val_predict(model, values_ND, problem.given_N, cv=5, method="predict_proba")
    is_issue_N = find_label_issues(problem.given_N, prob_NK, n_jobs=1)
    score_N = get_label_quality_scores(problem.given_N, prob_NK)
    figures: dict[str, float | bool] = dict(
        measure(score_N, is_issue_N, prob_NK.argmax(1), problem.given_N, problem.true_N)
    )
    model.fit(values_ND[~is_issue_N], problem.given_N[~is_issue_N])
    test_MD = ((problem.test_MD - mean_D) / std_D).astype(np.float32)
    figures["accuracy"] = float((model.predict(test_MD) == problem.test_M).mean())
    return figures


def datalab(problem: Problem) -> dict[str, float | bool]:
    """cleanlab's Datalab with embeddings only: it computes its probabilities from 11 neighbours."""
    from cleanlab import Datalab

    lab = Datalab({"label": problem.given_N.tolist()}, label_name="label", task="classification", verbosity=0)
    lab.find_issues(features=problem.values_ND.astype(np.float32), issue_types={"label": {}})
    table = lab.get_issues("label")
    predicted_N = table["predicted_label"].to_numpy()
    return dict(
        measure(
            table["label_score"].to_numpy(),
            table["is_label_issue"].to_numpy(),
            predicted_N,
            problem.given_N,
            problem.true_N,
        )
    )


def knn_votes(problem: Problem) -> dict[str, float | bool]:
    """The share of 50 neighbours (cosine) with the given label; a suspect where another class has more votes."""
    values_ND = problem.values_ND.astype(np.float32)
    index = NearestNeighbors(n_neighbors=NEIGHBOURS + 1, metric="cosine").fit(values_ND)
    near_NM = index.kneighbors(values_ND, return_distance=False)[:, 1:]
    votes_NK = np.stack([(problem.given_N[near_NM] == k).mean(1) for k in range(problem.classes)], 1)
    own_N = votes_NK[np.arange(len(votes_NK)), problem.given_N]
    predicted_N = votes_NK.argmax(1)
    return dict(measure(own_N, votes_NK.max(1) > own_N, predicted_N, problem.given_N, problem.true_N))


METHODS: dict[str, Callable[[Problem], dict[str, float | bool]]] = {
    "ours": ours,
    "cleanlab": cleanlab_usual,
    "datalab": datalab,
    "knn": knn_votes,
}


def load(folder: Path, name: str, row: str, seed: int) -> Problem:
    """One row of the table."""
    values_ND, true_N = np.load(folder / f"{name}_train.npy"), np.load(folder / f"{name}_train_labels.npy")
    classes = int(true_N.max()) + 1
    test = np.load(folder / f"{name}_test.npy"), np.load(folder / f"{name}_test_labels.npy")
    return Problem(values_ND, add_noise(true_N, row, classes, seed), true_N, classes, *test, seed)


def peak_mib() -> int:
    """Peak memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def scaling(sizes: Sequence[int], dim: int) -> list[dict[str, float]]:
    """Seconds and peak memory of an audit of N synthetic float16 embeddings in a memory map, 10 % wrong."""
    found = []
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(10, dim)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        for num in sizes:
            values = np.lib.format.open_memmap(f"{folder}/{num}.npy", "w+", np.float16, (num, dim))
            labels = rng.integers(0, 10, num)
            for first in range(0, num, 65536):
                part = labels[first : first + 65536]
                values[first : first + 65536] = centres[part] + 3 * rng.standard_normal((len(part), dim), np.float32)
            values.flush()
            del values
            given = add_noise(labels, "sym0.1", 10, 0)
            began = time.process_time()
            result = audit(np.load(f"{folder}/{num}.npy", mmap_mode="r"), given, true_labels=labels)
            row = {"n": num, "dim": dim, "seconds": round(result.seconds, 1), "peak_mib": peak_mib()}
            row["cpu_seconds"] = round(time.process_time() - began, 1)
            found.append(row | {"f1": round(result.true_metrics["f1"], 4)})
            print(found[-1], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embeddings", type=Path, help="folder with NAME_train.npy and so on")
    parser.add_argument("--names", nargs="+", default=["cifar10", "cifar100", "clothing"])
    parser.add_argument("--rows", nargs="+", default=list(ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--scaling", nargs="+", type=int, metavar="N")
    parser.add_argument("--dim", type=int, default=256, help="of --scaling")
    parser.add_argument("--json", type=Path, help="default: results/<machine>/audit.json")
    options = parser.parse_args()
    machine = this_machine("cpu")
    file = options.json or RESULTS / machine.slug() / "audit.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"rows": [], "scaling": []}
    results["machine"] = asdict(machine)
    if options.scaling:
        results["scaling"] += scaling(options.scaling, options.dim)
    done = {(row["data"], row["noise"], row["seed"], row["method"]) for row in results["rows"]}
    cells = [(n, r, s, m) for s in options.seeds for n in options.names for r in options.rows for m in options.methods]
    for name, noise, seed, method in cells if options.embeddings else []:
        if (name, noise, seed, method) in done:
            continue
        if method in ("cleanlab", "datalab") and importlib.util.find_spec("cleanlab") is None:
            print(f"{method}: not installed; pip install 'cleanlab[datalab]' to compare with it")
            continue
        problem = load(options.embeddings, name, noise, seed)
        began, cpu_began, load_average = time.perf_counter(), time.process_time(), os.getloadavg()[0]
        figures = METHODS[method](problem)
        seconds, cpu_seconds = round(time.perf_counter() - began, 1), round(time.process_time() - cpu_began, 1)
        row = {"data": name, "noise": noise, "seed": seed, "method": method, "seconds": seconds}
        row |= {"cpu_seconds": cpu_seconds, "load": round(load_average, 1), "peak_mib": peak_mib()}
        row |= {key: round(float(value), 4) for key, value in figures.items()}
        results["rows"].append(row)
        file.write_text(json.dumps(results, indent=1) + "\n")
        print(row, flush=True)
    file.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
