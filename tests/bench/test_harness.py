"""The bench harness: a wrong row shows no speed anywhere, ratios are those of medians, calls take turns."""

import importlib
import json
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def harness(monkeypatch):
    """bench/ is a folder of scripts, not a package."""
    monkeypatch.syspath_prepend(str(BENCH))
    for loaded in ("harness", "gpu_timing"):
        monkeypatch.delitem(sys.modules, loaded, raising=False)
    return importlib.import_module("harness")


def row(harness, value, **options):
    timings = {"ours": harness.Timing(0.002, 0.001, 0.004, 5), "theirs": harness.Timing(0.007, 0.006, 0.009, 5)}
    return harness.Row({"N": 10}, harness.Check("error", value, 1e-6), "ours", timings, **options)


def test_passing_row_shows_times_ratio_and_floor(harness, capsys, tmp_path):
    report = harness.Report("example", harness.this_machine("cpu"), tmp_path)
    report.add(row(harness, 1e-7, floor=0.0005))
    assert report.finish() == 0
    printed = capsys.readouterr().out
    assert "2 (1-4, n=5)" in printed
    assert "3.50x" in printed
    assert "25%" in printed
    assert "FAIL" not in printed.splitlines()[-2]
    (path,) = tmp_path.glob("*/example.json")
    content = json.loads(path.read_text())
    assert path.parent.name == report.machine.slug()
    assert content["rows"][0]["ratios"] == {"theirs": 3.5}
    assert content["rows"][0]["seconds"]["ours"] == {"median": 0.002, "low": 0.001, "high": 0.004, "n": 5}
    assert content["rows"][0]["floor_fraction"] == 0.25


@pytest.mark.parametrize("value", [2e-6, float("nan"), float("inf")])
def test_failing_row_shows_no_speed(harness, capsys, tmp_path, value):
    report = harness.Report("example", harness.this_machine("cpu"), tmp_path)
    report.add(row(harness, value, floor=0.0005))
    assert report.finish() == 1
    printed = capsys.readouterr().out.splitlines()[-2]
    assert "FAIL" in printed
    assert "x" not in printed.replace("example", "")
    assert "ms" not in printed
    (path,) = tmp_path.glob("*/example.json")
    record = json.loads(path.read_text())["rows"][0]
    assert not {"seconds", "ratios", "floor_seconds", "floor_fraction"} & record.keys()
    assert record["check"]["passed"] is False


def test_calls_take_turns_and_warm_up_is_not_counted(harness):
    order = []
    calls = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    timings = harness.time_in_turns(calls, 3, "cpu", warmup=2)
    assert order == ["a", "b"] * 5
    assert {name: timing.n for name, timing in timings.items()} == {"a": 3, "b": 3}
    assert all(timing.low <= timing.median <= timing.high for timing in timings.values())


def test_machine_line_names_what_a_result_depends_on(harness):
    machine = harness.this_machine("cpu")
    line = machine.line()
    assert machine.name in line
    assert "torch 2." in line
    assert f"commit {machine.commit}" in line
    assert machine.slug().isascii()
    assert " " not in machine.slug()


def test_json_grows_with_each_row(harness, tmp_path):
    """A bench that is ended early leaves the rows that it had."""
    report = harness.Report("example", harness.this_machine("cpu"), tmp_path)
    for number in (1, 2):
        report.add(row(harness, 1e-7))
        assert len(json.loads(report.path.read_text())["rows"]) == number
    assert [path.name for path in report.path.parent.iterdir()] == ["example.json"]


def test_commit_of_a_copy_without_git(harness, monkeypatch):
    monkeypatch.setenv("FASTCPC_COMMIT", "abc1234")
    assert harness.this_machine("cpu").commit == "abc1234"
