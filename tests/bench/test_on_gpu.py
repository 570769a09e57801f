"""The runner of the first commands on a new GPU, with parts of its own; and the commands that it would run."""

import importlib
import json
import os
import re
import select
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest

from fastcpc.config.load import load_config

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCH))
    for loaded in ("harness", "gpu_timing", "gpu_parts", "on_gpu"):
        monkeypatch.delitem(sys.modules, loaded, raising=False)
    module = importlib.import_module("on_gpu")
    monkeypatch.setattr(module, "WORTH_STARTING", 0.0)
    return module


def script(on_gpu: Any, name: str, text: str, **options: Any) -> Any:
    return on_gpu.Part(name, (sys.executable, "-c", text), 1, **options)


def ends(outcomes: Any) -> list[tuple[str, str]]:
    return [(outcome.name, outcome.end) for outcome in outcomes]


def test_failed_parts_are_repeated_and_passed_ones_skipped(on_gpu: Any, tmp_path: Path) -> None:
    count = f"open({str(tmp_path / 'count')!r}, 'a').write('x'); print('fine')"
    good, last = script(on_gpu, "good", count), script(on_gpu, "last", count)
    bad = script(on_gpu, "bad", "print('oh'); raise SystemExit(3)")
    todo = [good, bad, last]
    assert ends(on_gpu.Runner(tmp_path, 5, {}).run(todo)) == [
        ("good", "passed"), ("bad", "failed (exit status 3)"), ("last", "passed"),
    ]  # fmt: skip
    summary = json.loads((tmp_path / "on_gpu.json").read_text())
    assert [part["last"] for part in summary["parts"]] == ["fine", "oh", "fine"] and summary["machine"]["device"]
    assert (tmp_path / "bad.log").read_text() == "oh\n"
    on_gpu.Runner(tmp_path, 5, {}).run(todo[:2])
    assert (tmp_path / "count").read_text() == "xx"
    new = replace(good, name="new")
    assert ends(on_gpu.Runner(tmp_path, -1.0, {}).run([*todo, new]))[-2:] == [
        ("last", "passed"), ("new", "not started"),
    ]  # fmt: skip


def test_part_over_its_limit_ends_with_all_its_processes(on_gpu: Any, tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    nested = f"exec 9> {pipe}; sleep 600 & echo started >&9; wait"  # both processes hold the pipe open
    running = on_gpu.Running(on_gpu.Part("hangs", ("bash", "-c", nested), 1), tmp_path, 600.0, {})
    reader: list[IO[str]] = [pipe.open()]
    assert reader[0].readline() == "started\n"
    assert running.outcome() is None
    running.deadline = 0.0
    assert running.outcome().end == "time over"
    assert select.select(reader, [], [], 60)[0] == reader and reader[0].read() == ""  # both processes are gone
    reader[0].close()


def test_parts_beside_each_other_run_together(on_gpu: Any, tmp_path: Path) -> None:
    """Each waits for the other's file; one that fails stops nobody."""
    wait = (
        "import pathlib, sys, time\nopen(sys.argv[1], 'w')\n"
        "while not pathlib.Path(sys.argv[2]).exists(): time.sleep(0.01)"
    )
    files = [str(tmp_path / name) for name in ("a", "b")]
    both = [
        on_gpu.Part(name, (sys.executable, "-c", wait, *files[::step]), 1, beside=True)
        for name, step in (("a", 1), ("b", -1))
    ]
    bad = script(on_gpu, "bad", "raise SystemExit(1)", beside=True)
    alone = script(on_gpu, "alone", "print('after')")
    outcomes = on_gpu.Runner(tmp_path, 5, {}).run([*both, bad, alone])
    assert ends(outcomes) == [
        ("a", "passed"), ("b", "passed"), ("bad", "failed (exit status 1)"), ("alone", "passed"),
    ]  # fmt: skip


def test_time_is_reserved_for_later_parts(on_gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: dict[str, float] = {}

    def start(part: Any, out: Path, seconds: float, variables: Any) -> Any:
        limits[part.name] = seconds
        return running(part, out, seconds, variables)

    running = on_gpu.Running
    monkeypatch.setattr(on_gpu, "Running", start)
    parts = [script(on_gpu, "early", ""), script(on_gpu, "middle", "", reserved=0.5), script(on_gpu, "late", "")]
    parts = [replace(part, minutes=10) for part in parts]
    on_gpu.Runner(tmp_path, 2, {}).run([*parts[:2], replace(parts[2], reserved=1)])
    assert limits["early"] == pytest.approx(30, abs=20) and limits["early"] < 31
    assert 31 < limits["middle"] < 61 and 61 < limits["late"] < 120


def test_archive_holds_everything_after_each_part(on_gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, archive = tmp_path / "out", tmp_path / "out.tar.gz"
    (out / "results" / "gpu").mkdir(parents=True)
    (out / "results" / "gpu" / "step.json").write_text("{}")
    (out / "state").mkdir()
    (out / "state" / "weights.bin").write_text("large")
    seen = []
    pack = on_gpu.pack

    def packed(*arguments: Any) -> None:
        pack(*arguments)
        with tarfile.open(archive) as file:
            seen.append(sorted(file.getnames()))

    monkeypatch.setattr(on_gpu, "pack", packed)
    on_gpu.Runner(out, 5, {}, archive).run([script(on_gpu, "one", ""), script(on_gpu, "two", "")])
    common = ["on_gpu.json", "one.log", "results/gpu/step.json"]
    assert seen == [common, sorted([*common, "two.log"])]


def test_second_command_is_a_profile_if_the_first_failed(on_gpu: Any, tmp_path: Path) -> None:
    setting = on_gpu.Setting(tmp_path, tmp_path / "state", data=tmp_path)
    names = lambda given: [part.name for part in on_gpu.parts_of("second", given, tmp_path)]  # noqa: E731
    assert names(setting) == ["accuracy"]
    assert names(replace(setting, data=None)) == ["profile eager", "profile compiled"]
    on_gpu.write_summary(
        tmp_path, [on_gpu.Outcome("step", "passed", 1.0, ""), on_gpu.Outcome("epoch", "time over", 1.0, "")]
    )
    assert names(setting) == ["profile eager", "profile compiled"]
    assert [part.name for part in on_gpu.parts_of("second", setting, tmp_path, anyway=True)] == ["accuracy"]


@pytest.mark.parametrize("command", ["first", "second", "profile", "rest"])
def test_commands_match_their_scripts(
    on_gpu: Any, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpu_parts.shutil.which", lambda name: f"/bin/{name}")
    setting = on_gpu.Setting(
        tmp_path, tmp_path / "state", images=tmp_path, data=None if command == "profile" else tmp_path
    )
    listed = on_gpu.parts_of("second" if command == "profile" else command, setting, tmp_path)
    for part in listed:
        paths = [part for part in part.command if part.endswith(".py")]
        if not paths:
            assert all(Path(BENCH.parent, part).is_dir() for part in part.command if part.startswith("tests/"))
            continue
        assert all(Path(part).exists() for part in part.command if part.endswith(".yaml"))
        takes = Path(paths[0]).read_text(encoding="utf-8") + (BENCH / "harness.py").read_text(encoding="utf-8")
        assert all(f'"{part}"' in takes for part in part.command if part.startswith("--")), part.name
    words = " ".join(word for part in listed for word in part.command)
    if command != "rest":
        assert "not max-autotune" in words if command == "first" else "max-autotune" not in words
        assert not {"sanitizer", "dali"} & set(words.lower().split())


@pytest.mark.parametrize("small", [False, True])
def test_settings_of_the_parts_are_valid(on_gpu: Any, tmp_path: Path, small: bool) -> None:
    setting = on_gpu.Setting(tmp_path, tmp_path / "state", data=tmp_path, small=small)
    parts = [*on_gpu.first(setting), *on_gpu.second(setting, profile=False), *on_gpu.second(setting, profile=True)]
    seen = set()
    for part in parts:
        settings = [word for word in part.command if re.fullmatch(r"[a-z_.]+=.*", word) and "faulthandler" not in word]
        config = load_config([BENCH.parent / "configs/fast/cifar10_sym50.yaml"], settings)
        assert "--width" not in part.command or int(part.command[part.command.index("--width") + 1]) >= 16
        seen |= {config.train.batch_size}
    assert seen == ({16, 256} if small else {256})


def test_list_of_commands_needs_no_gpu(on_gpu: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["second", "--out", str(tmp_path / "out"), "--data", str(tmp_path), "--minutes", "3", "--epochs", "7"]
    assert on_gpu.main([*command, "--list"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("accuracy (3 min): ") and "--minutes 2.6 --epochs 7" in line
    assert f"--state {tmp_path}/out/state" in line and f"data.root={tmp_path}" in line
    with pytest.raises(SystemExit):
        on_gpu.main([*command, "--only", "tests"])
    assert "--only tests: the parts here are accuracy" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_first_command_fits_in_nine_minutes(on_gpu: Any, tmp_path: Path) -> None:
    parts = on_gpu.first(on_gpu.Setting(tmp_path, tmp_path))
    together, alone = ([p for p in parts if p.beside is beside] for beside in (True, False))
    assert max(part.minutes for part in together) + sum(part.reserved for part in alone) < on_gpu.MINUTES["first"] < 9
    assert sum(on_gpu.MINUTES[name] for name in ("first", "second")) < 14
    for part in together:
        assert part.name == "compiler cache" or part.environment["PYTEST_ADDOPTS"] == "-W default"


def test_warnings_are_no_errors_in_the_inner_run_either(on_gpu: Any, tmp_path: Path) -> None:
    """The variable reaches the pytest that a test starts."""
    test = tmp_path / "test_it.py"
    test.write_text("import warnings\ndef test_it():\n    warnings.warn('of a new driver')\n")
    settings = str(BENCH.parent / "pyproject.toml")
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", settings)
    outer = f"import subprocess; raise SystemExit(subprocess.run({[*command, str(test)]}).returncode)"
    variables = on_gpu.environment("abc")
    (tests, *_) = on_gpu.first(on_gpu.Setting(tmp_path, tmp_path))
    parts = [
        on_gpu.Part("as here", (sys.executable, "-c", outer), 1),
        on_gpu.Part("as there", (sys.executable, "-c", outer), 1, environment=tests.environment),
    ]
    assert [end for _, end in ends(on_gpu.Runner(tmp_path, 5, variables).run(parts))] == [
        "failed (exit status 1)", "passed",
    ]  # fmt: skip
