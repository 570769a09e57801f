"""The number of cores that a process may use."""

import os
from pathlib import Path

import pytest

from fastcpc.data.cores import usable_cores


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/job\n", {}, 8),
        ("0::/job\n", {"job/cpu.max": "max 100000"}, 8),
        ("0::/job/step\n", {"job/cpu.max": "250000 100000"}, 3),  # of the group above
        ("0::/\n", {"cpu.max": "50000 100000"}, 1),
        ("4:cpu,cpuacct:/x\n", {"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4),
        ("4:cpu,cpuacct:/x\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
    ],
)
def test_affinity_and_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: str, files: dict[str, str], expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    (tmp_path / "own").write_text(groups)
    for name, text in files.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(text + "\n")
    assert usable_cores(tmp_path / "root", tmp_path / "own") == expected
    assert usable_cores(tmp_path / "root", tmp_path / "none") == 8
