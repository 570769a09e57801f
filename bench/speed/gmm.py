"""fit_gmm (fit and posterior of all groups at once) against a loop of scikit-learn fits, one per group.

There are two rows per shape. "own" compares the usual loop (k-means start, fit, predict_proba) with fit_gmm from its
own start. "given" passes the same means, variances and weights to both, so that only EM and posterior remain. Both
rows share one check. From the same start every group stops after the same number of iterations, and every posterior
agrees within 1e-6. On a GPU a row also shows the kernels of a call and their time without the host's.
--check-only runs the loop once, for the check, and times fit_gmm alone.
"""

import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from fastcpc.kernels import MixtureFit, fit_gmm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # bench/: the modules of all benches
from gpu_timing import kernels_of
from harness import Check, Report, Row, arguments, this_machine, time_in_turns

SHAPES = ((50_000, 1), (50_000, 10), (50_000, 100), (1_000_000, 14))
EM: dict[str, Any] = {"max_iter": 10, "tol": 1e-2, "reg_covar": 5e-4}  # the settings of DivideMix
POSTERIOR_LIMIT = 1e-6


def losses(num_samples: int, num_groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Two-mode values in [0, 1], like normalised losses at 50 % noise, and group ids in random order."""
    rng = np.random.default_rng(0)
    clean = rng.random(num_samples) < 0.5
    values = np.where(clean, rng.beta(1.2, 20, num_samples), rng.beta(6, 5, num_samples))
    return values, rng.integers(0, num_groups, num_samples)


class Loop:
    """scikit-learn, one fit per group; the samples are grouped before the clock starts."""

    def __init__(self, values: np.ndarray, groups: np.ndarray, num_groups: int) -> None:
        self.learners = [np.flatnonzero(groups == g) for g in range(num_groups)]
        self.columns = [values[learner][:, None] for learner in self.learners]

    def run(self, starts: tuple[np.ndarray, ...] | None) -> tuple[list[np.ndarray], list[int]]:
        """Posteriors of the component with the smaller mean, and iterations, for each group."""
        posteriors, iterations = [], []
        for g, column in enumerate(self.columns):
            start: dict[str, Any] = {"random_state": 0}
            if starts is not None:
                means, variances, weights = (part[g] for part in starts)
                precisions = 1.0 / variances[:, None, None]
                start = {"means_init": means[:, None], "precisions_init": precisions, "weights_init": weights}
            mixture = GaussianMixture(2, **EM, **start).fit(column)
            posteriors.append(mixture.predict_proba(column)[:, mixture.means_.argmin()])
            iterations.append(mixture.n_iter_)
        return posteriors, iterations


def bench(num_samples: int, num_groups: int, device: str, repeats: int, *, timed_loop: bool = True) -> list[Row]:
    """The two rows of one shape."""
    values, groups = losses(num_samples, num_groups)
    loop = Loop(values, groups, num_groups)
    start = tuple(np.tile(part, (num_groups, 1)) for part in ([0.1, 0.6], [0.01, 0.02], [0.5, 0.5]))
    there = torch.from_numpy(values).to(device), torch.from_numpy(groups).to(device)
    start_there = tuple(torch.from_numpy(part).to(device) for part in start)

    def ours(init: Any) -> tuple[MixtureFit, torch.Tensor]:
        fit = fit_gmm(*there, num_groups, init=init, **EM)
        return fit, fit.clean_probability(*there)

    check, iterations = compare(ours(start_there), loop.run(start), loop.learners)
    rows = []
    for name, init, peer in (("own", None, None), ("given", start_there, start)):
        labels = {"N": num_samples, "groups": num_groups, "start": name, "iterations": iterations}
        calls: dict[str, Callable[[], Any]] = {"fastcpc": partial(ours, init)}
        if timed_loop:
            calls["sklearn loop"] = partial(loop.run, peer)
        timings = time_in_turns(calls, repeats, device) if check.passed else {}
        notes = {}
        if device == "cuda" and check.passed:
            kernels, seconds = kernels_of(calls["fastcpc"])
            notes = {"kernels": kernels, "kernels_ms": round(seconds * 1e3, 4)}
        rows.append(Row(labels, check, "fastcpc", timings, notes=notes))
    return rows


def compare(ours: Any, theirs: Any, learners: list[np.ndarray]) -> tuple[Check, str]:
    """The check of both rows, and the range of iterations."""
    (fit, posterior), (posteriors, iterations) = ours, theirs
    later = int(np.abs(fit.n_iter.cpu().numpy() - np.array(iterations)).max())
    own = posterior.cpu().numpy()
    apart = max(float(np.abs(own[learner] - other).max()) for learner, other in zip(learners, posteriors, strict=True))
    check = Check("iterations apart", later, 0) if later else Check("posterior apart", apart, POSTERIOR_LIMIT)
    return check, f"{min(iterations)}-{max(iterations)}"


def main() -> int:
    """Print the table and write the JSON."""
    parser = arguments(__doc__)
    parser.add_argument(
        "--large", action="store_true", help="also 2,400,000 samples in 1,000 groups (minutes on a CPU)"
    )
    parser.add_argument("--shapes", nargs="+", metavar="NxG", help="samples and groups, e.g. 50000x100")
    parser.add_argument("--check-only", action="store_true", help="do not time the loop of scikit-learn fits")
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    report = Report("gmm", this_machine(options.device), options.results)
    shapes = SHAPES + (((2_400_000, 1_000),) if options.large else ())
    if options.shapes:
        shapes = tuple((int(n), int(g)) for n, g in (text.split("x") for text in options.shapes))
    for num_samples, num_groups in shapes:
        repeats = options.repeats or (3 if num_samples > 100_000 else 5)
        for row in bench(num_samples, num_groups, options.device, repeats, timed_loop=not options.check_only):
            report.add(row)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
