"""Kill ranks of a small run on two ranks many times; the result must be bit-identical to an undisturbed run.

    python bench/soak.py [--kills 30] [--seed 1]

Each SIGKILL hits a random rank at a random step, plus up to 50 ms. Then all ranks are restarted: 30 times by a harness
that forks them, some more times by torchrun. At the end a second node with its torchrun is killed, and joins again.
Prints what happened and writes it to results/soak.json. Exits with 1 if a metric, a weight or a probability is not
bit-identical. Needs no GPU and takes some minutes.
"""

import argparse
import json
import random
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support" / "runs"))

from several_ranks import SUPPORT, end_node, environment, free_port, on_ranks, start_node, torchrun, wait_for_port
from small_run import assert_same_run, small_config

from fastcpc.config.load import to_yaml

LIMIT = 3600
LONGER = {"train": {"epochs": 30}}
FEW = 5  # kills under torchrun, which imports everything again for each rank and start


def main() -> int:
    """Run both soaks and write what they found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=("kills", "torchrun", "node"), help="one of them; the others' record stays")
    options = parser.parse_args()
    target = ROOT / "bench" / "results" / "soak.json"
    result: dict[str, Any] = json.loads(target.read_text()) if target.exists() else {}
    with TemporaryDirectory(prefix="fastcpc-soak-") as place:
        folder = Path(place)
        on_ranks(2, "rank_runs:train_small", folder / "whole", json.dumps(LONGER))
        for name, soak in (
            ("kills", lambda: kill_ranks(folder, options.kills, options.seed)),
            ("torchrun", lambda: kill_under_torchrun(folder, FEW, options.seed)),
            ("node", lambda: kill_a_node(folder)),
        ):
            if options.only in (None, name):
                result[name] = {"date": date.today().isoformat(), **soak()}
    print(json.dumps(result, indent=2))
    target.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if all(part["same"] for part in result.values()) else 1


def draw_kills(num_kills: int, seed: int) -> list[list[Any]]:
    """Kills in the format of unlucky_train.py: a rank, a step, and a delay of up to 50 ms."""
    draw = random.Random(seed)
    return [
        [draw.randrange(2), draw.randint(1, 30), "SIGKILL", "self", draw.uniform(0, 0.05)] for _ in range(num_kills)
    ]


def kill_ranks(folder: Path, num_kills: int, seed: int) -> dict[str, Any]:
    """A run whose ranks are killed num_kills times, and restarted from a warm interpreter."""
    begin = time.monotonic()
    accidents = json.dumps(draw_kills(num_kills, seed))
    on_ranks(
        2,
        "rank_runs:train_unlucky",
        folder / "killed",
        json.dumps(LONGER),
        accidents,
        restarts=num_kills,
        limit=LIMIT,
    )
    log = (folder / "killed" / "train.log").read_text()
    return {
        "kills": num_kills,
        "starts": log.count("2 processes (gloo)"),
        "resumed": log.count("resumed from"),
        "seconds": round(time.monotonic() - begin),
        "same": is_same(folder / "whole", folder / "killed"),
    }


def kill_under_torchrun(folder: Path, num_kills: int, seed: int) -> dict[str, Any]:
    """The same, but torchrun restarts the ranks."""
    config = write_config(folder / "torchrun")
    arguments = (str(SUPPORT / "unlucky_train.py"), json.dumps(draw_kills(num_kills, seed)), "--config", str(config))
    command = torchrun(2, *arguments, options=("--standalone", f"--max-restarts={num_kills}", "--monitor-interval=0.1"))
    begin = time.monotonic()
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=LIMIT, check=False)
    log = (folder / "torchrun" / "train.log").read_text()
    return {
        "kills": done.stderr.count("(exitcode: -9)"),
        "resumed": log.count("resumed from"),
        "returncode": done.returncode,
        "seconds": round(time.monotonic() - begin),
        "same": done.returncode == 0 and is_same(folder / "whole", folder / "torchrun"),
    }


def kill_a_node(folder: Path) -> dict[str, Any]:
    """Two nodes on loopback, one rank each; the second is killed after two epochs, and restarted."""
    config = write_config(folder / "node")
    port = free_port()
    arguments = (str(SUPPORT / "unlucky_train.py"), "[]", "--config", str(config))
    begin = time.monotonic()
    nodes = [start_node(port, *arguments)]
    try:
        wait_for_port(port, nodes[0])
        nodes.append(start_node(port, *arguments))
        first, second = nodes
        metrics = folder / "node" / "metrics.jsonl"
        while not (metrics.exists() and metrics.read_text().count("\n") >= 2) and time.monotonic() < begin + LIMIT:
            time.sleep(0.02)
        running = first.poll() is None and second.poll() is None
        end_node(second)
        again = start_node(port, *arguments)
        nodes.append(again)
        for process in (first, again):
            process.communicate(timeout=LIMIT)
        codes = [first.returncode, again.returncode]
    finally:
        for process in nodes:
            end_node(process)
    log = (folder / "node" / "train.log").read_text()
    return {
        "killed_while_running": running,
        "resumed": log.count("resumed from"),
        "returncodes": codes,
        "seconds": round(time.monotonic() - begin),
        "same": codes == [0, 0] and is_same(folder / "whole", folder / "node"),
    }


def write_config(folder: Path) -> Path:
    """The small run's config for this folder, as a file beside it."""
    file = folder.parent / f"{folder.name}.yaml"
    file.write_text(to_yaml(small_config(folder, **LONGER)))
    return file


def is_same(one: Path, other: Path) -> bool:
    """Whether the results of two runs are bit-identical; prints what differs."""
    try:
        assert_same_run(one, other)
    except AssertionError as difference:
        print(difference, file=sys.stderr)
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
