"""The runner of what a new GPU is asked, with steps of its own; and the commands that it would run."""

import importlib
import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCH))
    for loaded in ("harness", "on_gpu"):
        monkeypatch.delitem(sys.modules, loaded, raising=False)
    module = importlib.import_module("on_gpu")
    monkeypatch.setattr(module, "WORTH_STARTING", 0.0)
    return module


def test_failed_steps_are_repeated_and_passed_ones_skipped(
    on_gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    nested = f"exec 9> {pipe}; sleep 600 & echo started >&9; wait"  # both processes hold the pipe open
    reader: list[IO[str]] = []

    class TimeOver(subprocess.Popen[bytes]):
        """The time of the command "bash" is over as soon as it has started its child."""

        def wait(self, timeout: float | None = None) -> int:
            if timeout is None or self.args[0] != "bash":  # type: ignore[index]
                return super().wait(timeout)
            reader.append(pipe.open())
            assert reader[0].readline() == "started\n"
            raise subprocess.TimeoutExpired(self.args, timeout)

    monkeypatch.setattr(on_gpu.subprocess, "Popen", TimeOver)
    count = f"open({str(tmp_path / 'count')!r}, 'a').write('x'); print('fine')"
    todo = [
        on_gpu.Step("good", (sys.executable, "-c", count), 1),
        on_gpu.Step("bad", (sys.executable, "-c", "print('oh'); raise SystemExit(3)"), 1),
        on_gpu.Step("hangs", ("bash", "-c", nested), 1),
        on_gpu.Step("last", (sys.executable, "-c", count), 1),
    ]
    ends = [(o.name, o.end) for o in on_gpu.run_all(todo, tmp_path, 5)]
    assert ends == [("good", "passed"), ("bad", "failed (exit status 3)"), ("hangs", "time over"), ("last", "passed")]
    assert select.select(reader, [], [], 60)[0] == reader and reader[0].read() == ""  # both processes are gone
    reader[0].close()
    summary = json.loads((tmp_path / "on_gpu.json").read_text())
    assert [step["last"] for step in summary["steps"]][:2] == ["fine", "oh"] and summary["machine"]["device"]
    assert (tmp_path / "bad.log").read_text() == "oh\n"
    on_gpu.run_all(todo[:2], tmp_path, 5)
    assert (tmp_path / "count").read_text() == "xx"
    assert [o.end for o in on_gpu.run_all([*todo, on_gpu.Step("new", ("true",), 1)], tmp_path, -1.0)][-2:] == [
        "passed",
        "not started",
    ]


def test_commands_match_their_scripts(on_gpu: Any, tmp_path: Path) -> None:
    listed = on_gpu.steps(tmp_path, tmp_path)
    assert len(listed) >= 8
    for step in listed:
        script = next((part for part in step.command if part.endswith(".py")), None)
        if script is None:
            assert all(Path(BENCH.parent, part).is_dir() for part in step.command if part.startswith("tests/"))
            continue
        takes = Path(script).read_text(encoding="utf-8") + (BENCH / "harness.py").read_text(encoding="utf-8")
        assert all(f'"{part}"' in takes for part in step.command if part.startswith("--")), step.name
