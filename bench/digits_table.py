"""The digits table: every cleaner on three kinds of noise, several seeds, the same settings and epochs for all.

    python bench/digits_table.py                 # 75 runs, two at a time; a stopped table goes on where it stood
    python bench/digits_table.py --seeds 3 --noises sym80
Each run is `fastcpc-train --config configs/digits_NOISE.yaml cleaner.kind=KIND run.seed=SEED` on one thread, in a
process of its own. Writes bench/results/digits_table.json with every run's figures, prints the table in Markdown, and
puts it into README.md between its two markers when all seeds are there. Accuracies are those of the test split, which
nothing is trained on or chosen by: "last 10" is the mean over the last ten epochs, not the best epoch.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from harness import this_machine
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "bench" / "results" / "digits_table.json"
NOISES = ("sym80", "sym50", "asym40")
KINDS = ("none", "gmm_agn", "gmm_awr", "cpc_agn", "cpc_awr")
BEGIN, END = "<!-- digits table: bench/digits_table.py -->", "<!-- end of digits table -->"

Run = tuple[str, str, int]


def train(run: Run, folder: Path) -> dict[str, Any]:
    """One run in a process of its own (or what it left when it was finished before); its summary."""
    noise, kind, seed = run
    target = folder / f"{noise}-{kind}-{seed}"
    command = [
        sys.executable, "-m", "fastcpc.cli.train", "--config", str(ROOT / "configs" / f"digits_{noise}.yaml"),
        f"cleaner.kind={kind}", f"run.seed={seed}", f"run.dir={target}", "device=cpu",
    ]  # fmt: skip
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(
            f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    summary: dict[str, Any] = json.loads((target / "summary.json").read_text())
    return {"noise": noise, "cleaner": kind, "seed": seed} | summary


def table(records: Sequence[dict[str, Any]], noises: Sequence[str], kinds: Sequence[str]) -> list[str]:
    """Markdown: mean, standard deviation and (minimum) over seeds of the mean accuracy of the last ten epochs."""
    lines = ["| | " + " | ".join(kinds) + " |", "|---" * (len(kinds) + 1) + "|"]
    for noise in noises:
        cells = []
        for kind in kinds:
            values = [r["last10_top1"] for r in records if (r["noise"], r["cleaner"]) == (noise, kind)]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):.1f} +- {spread:.1f} ({min(values):.1f})")
        lines.append(f"| {noise[:-2]} {noise[-2:]} | " + " | ".join(cells) + " |")
    return lines


def put_between(begin: str, end: str, lines: Sequence[str]) -> None:
    """Replace what stands between two markers of README.md."""
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    head, rest = text.split(begin)
    tail = rest.split(end)[1]
    readme.write_text(head + begin + "\n" + "\n".join(lines) + "\n" + end + tail, encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="seeds 1..N; the README's table takes 5")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time")
    parser.add_argument("--noises", nargs="+", choices=NOISES, default=list(NOISES))
    parser.add_argument("--cleaners", nargs="+", choices=[*KINDS, "cpc_only"], default=list(KINDS))
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "digits_table", help="where the runs are kept")
    options = parser.parse_args(argv)
    runs = [(n, k, s) for s in range(1, options.seeds + 1) for n in options.noises for k in options.cleaners]
    with ThreadPoolExecutor(options.jobs) as pool:
        records = list(tqdm(pool.map(lambda run: train(run, options.folder), runs), total=len(runs), unit="run"))
    lines = table(records, options.noises, options.cleaners)
    print("\n".join(lines))
    if (options.seeds, options.noises, options.cleaners) == (5, list(NOISES), list(KINDS)):
        machine = this_machine("cpu")
        content = {
            "machine": machine.line(),
            "command": "python bench/digits_table.py",
            "table": lines,
            "runs": records,
        }
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        put_between(BEGIN, END, lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
