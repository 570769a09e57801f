"""Accuracy in bf16 compared with fp32 on digits with 80 % noise, several seeds.

    python bench/speed/precision.py            # 10 runs, one after the other; repeat to resume

Each run is `fastcpc-train --config configs/digits_sym80.yaml precision=PRECISION cleaner.guard=none
run.seed=SEED` on one thread, in its own process. The bench says nothing about speed: most CPUs emulate bf16 in float32.
Writes bench/results/precision.json. Exits with 1 if the mean accuracies of the last ten epochs differ by more than
``LIMIT``.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # bench/: the modules of all benches
from harness import this_machine

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "bench" / "results" / "precision.json"
CONFIG = "configs/digits_sym80.yaml"
PRECISIONS = ("fp32", "bf16")
SEEDS = 5
LIMIT = 1.0  # percent of the test split
KEPT = ("last10_top1", "best_top1", "final_top1", "suspected_precision", "suspected_recall")


def train(precision: str, seed: int, folder: Path) -> dict[str, Any]:
    """Train a run and return its summary. A run that is already finished there is reused."""
    target = folder / f"{precision}-{seed}"
    settings = [f"precision={precision}", "cleaner.guard=none", f"run.seed={seed}", f"run.dir={target}", "device=cpu"]
    command = [sys.executable, "-m", "fastcpc.cli.train", "--config", CONFIG, *settings]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with open(folder / f"{precision}-{seed}.log", "w", encoding="utf-8") as log:
        subprocess.run(command, cwd=ROOT, env=environment, stdout=log, check=True)
    summary = json.loads((target / "summary.json").read_text(encoding="utf-8"))
    return {"precision": precision, "seed": seed} | {key: summary[key] for key in KEPT}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=SEEDS, help="seeds 1..N")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "precision", help="where the runs are kept")
    options = parser.parse_args(argv)
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    runs = []
    for seed in range(1, options.seeds + 1):
        for precision in PRECISIONS:
            runs.append(train(precision, seed, out))
            print(
                ", ".join(f"{key} {value if key == 'precision' else f'{value:.4g}'}" for key, value in runs[-1].items())
            )
    lines = ["| precision | mean of the last 10 epochs | each seed |", "|---|---|---|"]
    means = []
    for precision in PRECISIONS:
        values = [run["last10_top1"] for run in runs if run["precision"] == precision]
        means.append(mean(values))
        spread = stdev(values) if len(values) > 1 else 0.0
        lines.append(f"| {precision} | {means[-1]:.1f} +- {spread:.1f} | {', '.join(f'{v:.1f}' for v in values)} |")
    print("\n".join(lines))
    apart = abs(means[0] - means[1])
    content = {
        "machine": this_machine("cpu").line(),
        "command": f"python bench/speed/precision.py --seeds {options.seeds}",
        "check": {"name": "means apart, points", "value": apart, "limit": LIMIT, "passed": apart <= LIMIT},
        "table": lines,
        "runs": runs,
    }
    RESULT.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if apart > LIMIT:
        print(f"FAIL: {apart:.2f} points apart, more than {LIMIT}")
    return int(apart > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
