"""Where a step's time goes, per operation: torch.profiler's list, and a trace for chrome://tracing.

Profiles the steps of bench/speed/step.py after a few unprofiled ones. Prints the operations that took most of the
device's own time, and writes their shares to results/<machine>/profile.json. ``--trace FILE`` writes the trace.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from step import Stretch, our_config
from torch.profiler import ProfilerActivity, profile
from trainers import made_up_cifar, scratch, trainer_of

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # bench/: the modules of all benches
from harness import arguments, this_machine

TOP = 25


def own_microseconds(event: Any, device: str) -> float:
    """Time of an operation without the operations that it calls."""
    return float(event.self_device_time_total if device == "cuda" else event.self_cpu_time_total)


def main() -> int:
    """Print the list and write JSON and trace."""
    parser = arguments(__doc__)
    small = not torch.cuda.is_available()
    parser.add_argument("--width", type=int, default=16 if small else 64)
    parser.add_argument("--batch", type=int, default=32 if small else 128)
    parser.add_argument("--steps", type=int, default=3 if small else 10)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--compile", default="false", choices=("false", "default", "graphs", "max-autotune"))
    parser.add_argument("--trace", type=Path, help="write the trace to this file (.json.gz)")
    options = parser.parse_args()
    machine = this_machine(options.device)
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if options.device == "cuda" else [])
    dataset = made_up_cifar(4 * options.batch * options.steps, 256)
    with scratch() as folder, trainer_of(our_config(options, folder, options.compile), dataset) as trainer:
        stretch = Stretch(trainer)
        stretch()
        with profile(activities=activities, record_shapes=True) as found:
            stretch()
            if options.device == "cuda":
                torch.cuda.synchronize()
    events = sorted(found.key_averages(), key=lambda event: -own_microseconds(event, options.device))
    total = sum(own_microseconds(event, options.device) for event in events)
    rows = [
        {"operation": event.key, "share": own_microseconds(event, options.device) / total, "calls": event.count}
        for event in events[:TOP]
    ]
    print(machine.line())
    for row in rows:
        print(f"{row['share']:7.1%}  {row['calls']:>6} x  {row['operation']}")
    path = options.results / machine.slug() / "profile.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"compile": options.compile, "width": options.width, "batch": options.batch, "steps": options.steps}
    path.write_text(json.dumps({"machine": asdict(machine), "settings": about, "top": rows}, indent=1) + "\n")
    print(f"wrote {path}")
    if options.trace:
        found.export_chrome_trace(str(options.trace))
        print(f"wrote {options.trace}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
