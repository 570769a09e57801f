"""The digits table: every cleaner on three kinds of noise, several seeds, the same settings and epochs for all.

    python bench/tables/digits_table.py                 # 75 runs, two at a time; repeat the command to resume
    python bench/tables/digits_table.py --seeds 3       # printed only: the README's table takes 5

It is `fastcpc-reproduce table3 --scale small --seeds 5`, with the result in the README. Each run is
`fastcpc-train --config configs/digits_NOISE.yaml cleaner.kind=KIND run.seed=SEED` on one thread, in its own process.
Writes bench/results/digits_table.json with every run's accuracy and prints the table in Markdown. When all seeds are
finished, it puts the table into README.md between its two markers. Accuracies are those of the test split, which is not
used for training or selection. "last 10" is the mean over the last ten epochs, not the best epoch.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from digits_grid import arguments, trained
from pages import README, ROOT, put_between

from fastcpc.report.paper.tables import Results, markdown

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # bench/: the modules of all benches
from harness import this_machine

RESULT = ROOT / "bench" / "results" / "digits_table.json"
BEGIN, END = "<!-- digits table: bench/tables/digits_table.py -->", "<!-- end of digits table -->"
SEEDS = 5


def records(results: Results) -> list[dict[str, object]]:
    """Every run's summary, with its noise, cleaner and seed."""
    return [
        {"noise": place.row.removeprefix("digits_"), "cleaner": place.cleaner, "seed": run.config.run.seed}
        | (run.summary or {})
        for place, runs in results.items()
        for run in runs
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="seeds 1..N; the README's table takes 5")
    options = parser.parse_args(argv)
    chosen, _, results = trained("table3", options.seeds, options)
    lines = markdown(chosen, results)
    print("\n".join(lines))
    if options.seeds == SEEDS:
        content = {
            "machine": this_machine("cpu").line(),
            "command": "python bench/tables/digits_table.py",
            "table": lines,
            "runs": records(results),
        }
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        put_between(BEGIN, END, lines, README)
    return 0


if __name__ == "__main__":
    sys.exit(main())
