"""Counts the CPU cores that this process may use.

Decoder threads, ``fastcpc-prepare`` and ``fastcpc-predict`` call it. A container or a batch system may allow
fewer cores than the machine has: by the process's affinity, or by a quota of its control group.
"""

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def usable_cores(root: Path = CGROUP, own: Path = Path("/proc/self/cgroup")) -> int:
    """Number of cores, 1 or more. root: of the control groups. own: the file with the groups of this process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *_quotas(root, own)]))


def _quotas(root: Path, own: Path) -> list[int]:
    """The quotas of all groups of this process in cores, rounded up."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []
    found = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:  # version 2: each group above limits it too
            folder = root / group.strip("/")
            for place in (folder, *folder.parents):
                found += _quota(place / "cpu.max")
        elif "cpu" in controllers.split(","):  # version 1; inside a container the group is the root of the mount
            for place in (root / "cpu" / group.strip("/"), root / "cpu"):
                found += _quota(place / "cpu.cfs_quota_us", place / "cpu.cfs_period_us")
    return found


def _quota(*files: Path) -> list[int]:
    """The quota of a group: a list of one number, or an empty list if there is no limit."""
    try:
        quota, period = (int(word) for file in files for word in file.read_text(encoding="ascii").split())
    except (OSError, ValueError):  # "max" is no limit
        return []
    return [-(-quota // period)] if quota > 0 and period > 0 else []
