"""Memory over a run: what the process holds after each epoch, and whether it still grows in a long run.

    python bench/speed/memory.py                                                        # 50 epochs on digits
    python bench/speed/memory.py --name photos --config configs/clothing_small.yaml data.root=DIR \
        semisup.batches_per_epoch=6

Trains a config epoch by epoch in this process, with checkpoints and logs. Reads the process's resident memory, and on a
GPU also the memory of torch's allocator. The first epochs fill caches and pools. Growth is the median of the last fifth
of the epochs minus the median of the second fifth. The check fails if growth exceeds ``LIMIT``. Writes
results/<machine>/memory_NAME.json.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch
from trainers import ROOT, scratch, trainer_of

from fastcpc.config.load import load_config

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # bench/: the modules of all benches
from harness import RESULTS, this_machine

LIMIT = 16.0  # MiB
MIB = 2**20


def resident() -> float:
    """Resident memory of this process in MiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    return int(kilobytes) / 1024


def growth(held: Sequence[float]) -> float:
    """Growth from the second fifth of the epochs to the last fifth, in MiB."""
    fifth = len(held) // 5
    return median(held[-fifth:]) - median(held[fifth : 2 * fifth])


def main() -> int:
    """Print the memory of every tenth epoch and write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "digits_sym80.yaml")
    parser.add_argument("--name", default="digits", help="of the JSON: memory_NAME.json")
    parser.add_argument("--epochs", type=int, default=50, help="10 or more")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the JSON goes, in the machine's folder")
    parser.add_argument("settings", nargs="*", help="key=value for the run")
    options = parser.parse_args()
    if options.epochs < 10:
        parser.error(f"--epochs {options.epochs}: must be 10 or more")
    held: dict[str, list[float]] = {"resident": []}
    with scratch() as folder:
        settings = [f"run.dir={folder}", f"train.epochs={options.epochs}", "train.warmup_epochs=2", *options.settings]
        config = load_config([options.config], settings)
        with trainer_of(config) as trainer, trainer.writer:
            device = trainer.numerics.device.type
            for epoch in range(options.epochs):
                trainer.run_epoch()
                held["resident"].append(resident())
                if device == "cuda":
                    held.setdefault("allocated", []).append(torch.cuda.memory_allocated() / MIB)
                if epoch % 10 == 9:
                    print(
                        f"epoch {epoch + 1}: " + ", ".join(f"{name} {kept[-1]:.1f} MiB" for name, kept in held.items())
                    )
    grown = {name: growth(kept) for name, kept in held.items()}
    passed = max(grown.values()) <= LIMIT
    machine = this_machine(device)
    content = {
        "machine": machine.line(),
        "command": " ".join(
            ["python bench/speed/memory.py", *(re.sub("(?<==)/.*/", "", word) for word in sys.argv[1:])]
        ),
        "check": {"name": "growth, MiB", "value": grown, "limit": LIMIT, "passed": passed},
        "held_mib": {name: [round(value, 1) for value in kept] for name, kept in held.items()},
    }
    target = options.results / machine.slug() / f"memory_{options.name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(content, indent=1) + "\n", encoding="ascii")
    print(f"growth {', '.join(f'{name} {value:.1f} MiB' for name, value in grown.items())}; wrote {target}")
    if not passed:
        print(f"FAIL: more than {LIMIT} MiB")
    return int(not passed)


if __name__ == "__main__":
    sys.exit(main())
