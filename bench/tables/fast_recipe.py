"""The fast recipe compared with the paper's on digits: accuracy and CPU time over several seeds.

    python bench/tables/fast_recipe.py                  # 10 runs in turn; repeat to resume

Each run is `fastcpc-train --config configs/[fast/]digits_sym80.yaml cleaner.guard=none run.seed=SEED` on one thread, in
its own process. It is measured from the start of Python to its end. CPU seconds are user and system time of that
process. A busy machine changes them much less than the clock time. Writes bench/results/fast_recipe.json.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # bench/: the modules of all benches
from harness import this_machine

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "bench" / "results" / "fast_recipe.json"
CONFIGS = {"paper": "configs/digits_sym80.yaml", "fast": "configs/fast/digits_sym80.yaml"}
SEEDS = 5


def train(config: str, seed: int, folder: Path, settings: Sequence[str]) -> dict[str, float]:
    """A run's accuracies (percent of the test split) and the CPU seconds of its process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [
        sys.executable, "-m", "fastcpc.cli.train", "--config", config, "cleaner.guard=none", f"run.seed={seed}",
        f"run.dir={folder}",
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with open(f"{folder}.log", "w", encoding="utf-8") as log:
        subprocess.run([*command, "run.resume=never", *settings], cwd=ROOT, env=environment, stdout=log, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    kept = ("final_top1", "last10_top1", "best_top1", "suspected_precision", "suspected_recall")
    return {"cpu_seconds": seconds} | {key: summary[key] for key in kept}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=SEEDS, help="seeds 1..N")
    parser.add_argument("--recipe", choices=list(CONFIGS), help="this one alone")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "fast_recipe", help="where the runs are kept")
    parser.add_argument("settings", nargs="*", help="key=value for every run")
    options = parser.parse_args(argv)
    recipes = [options.recipe] if options.recipe else list(CONFIGS)
    options.out.mkdir(parents=True, exist_ok=True)
    noted = options.out / "runs.json"
    runs = json.loads(noted.read_text(encoding="utf-8")) if noted.exists() else {}
    for seed in range(1, options.seeds + 1):
        for recipe in recipes:
            name = f"{recipe}-{seed}"
            if name not in runs:
                runs[name] = train(CONFIGS[recipe], seed, options.out / name, options.settings)
                noted.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
                print(name, {key: round(value, 3) for key, value in runs[name].items()}, flush=True)
    lines = ["| recipe | final top-1 | best top-1 | CPU seconds | seeds |", "|---|---|---|---|---|"]
    for recipe in recipes:
        own = [run for name, run in runs.items() if name.startswith(f"{recipe}-")]
        cells = [spread([run[key] for run in own]) for key in ("final_top1", "best_top1", "cpu_seconds")]
        lines.append(f"| {recipe} | {' | '.join(cells)} | {len(own)} |")
    print("\n".join(lines))
    content = {
        "machine": this_machine("cpu").line(),
        "load_average": os.getloadavg()[1],
        "command": "python bench/tables/fast_recipe.py " + " ".join(options.settings),
        "table": lines,
        "runs": runs,
    }
    RESULT.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    return f"{mean(values):.2f} +- {stdev(values):.2f}" if len(values) > 1 else f"{mean(values):.2f}"


if __name__ == "__main__":
    sys.exit(main())
