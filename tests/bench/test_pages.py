"""Benches write their tables between markers: each pair must be in the page that the bench names."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGES = {
    "digits_table": "README.md",
    "suspects": "docs/results.md",
    "clothing_table": "docs/experiments.md",
    "corrections_table": "docs/experiments.md",
    "guard_table": "docs/experiments.md",
    "digits_figure": "docs/experiments.md",
    "embedding_cleaners": "docs/experiments.md",
    "audit_table": "docs/experiments.md",
    "speed_table": "docs/performance.md",
    "full_runs": "docs/experiments.md",
}


def bench_named(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    monkeypatch.syspath_prepend(str(ROOT / "bench" / "tables"))
    monkeypatch.syspath_prepend(str(ROOT / "bench" / "cifar"))
    for loaded in ("harness", "pages", "digits_grid", "clothing_table", "figure", "paper", name):
        monkeypatch.delitem(sys.modules, loaded, raising=False)
    return importlib.import_module(name)


@pytest.mark.parametrize("name", list(PAGES))
def test_table_is_written_between_its_markers(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_named(name, monkeypatch)
    page = tmp_path / "page.md"
    page.write_text((ROOT / PAGES[name]).read_text(encoding="utf-8"), encoding="utf-8")
    bench.put_between(bench.BEGIN, bench.END, ["| new |"], page)
    text = page.read_text(encoding="utf-8")
    assert f"{bench.BEGIN}\n| new |\n{bench.END}" in text
    assert text.count(bench.BEGIN) == text.count(bench.END) == 1


@pytest.mark.parametrize("page", ["README.md", "docs/experiments.md"])
def test_pages_show_the_committed_cifar_runs(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_named("full_runs", monkeypatch)
    text = (ROOT / page).read_text(encoding="utf-8")
    assert text.split(bench.BEGIN)[1].split(bench.END)[0].strip().splitlines() == bench.table(bench.read(), ROOT / page)


def test_page_shows_what_the_cifar_runs_say_of_the_papers_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_named("full_runs", monkeypatch)
    text = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    assert text.split(bench.paper.BEGIN)[1].split(bench.paper.END)[0].strip().splitlines() == bench.paper.table(
        bench.read()
    )


def test_the_committed_cifar_runs_have_equal_flops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within 10 %. Runs with a longer warm-up, and runs that continue another one, have more."""
    records = bench_named("full_runs", monkeypatch).read()
    records = [one for one in records if one["name"].split("-")[1] in ("none", "gmm_agn", "cpc_awr")]
    assert len(records) >= 3
    for record in records:
        peers = [one for one in records if one["name"].split("-")[0] == record["name"].split("-")[0]]
        assert record["training_flops"] > 0.9 * max(one["training_flops"] for one in peers), record["name"]


def test_page_shows_the_committed_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_named("speed_table", monkeypatch)
    text = bench.PAGE.read_text(encoding="utf-8")
    assert text.split(bench.BEGIN)[1].split(bench.END)[0].strip().splitlines() == bench.table()


def written(folder: Path, name: str, device: str, rows: list[dict[str, Any]]) -> None:
    folder.mkdir(exist_ok=True)
    machine = {"name": "Chip", "cores": 4, "device": device}
    (folder / f"{name}.json").write_text(json.dumps({"machine": machine, "rows": rows}), encoding="ascii")


def test_speeds_are_of_rows_that_passed_with_their_spread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_named("speed_table", monkeypatch)
    timings = {
        "dali": (0.5, 0.4, 0.625),
        "DataLoader Pillow": (1.76, 0.9, 2.0),
        "a DALI reader a view": (0.25, 0.2, 0.25),
    }
    seconds = {
        name: {"median": median, "low": low, "high": high, "n": 7} for name, (median, low, high) in timings.items()
    }
    labels = {"views": "2 weak", "batch": 64, "photos": 1024}
    row = {"labels": labels, "check": {"passed": True}, "subject": "dali", "seconds": seconds}
    written(tmp_path / "cpu", "data", "cpu", [row])
    written(tmp_path / "gpu", "data", "cuda", [row])
    written(tmp_path / "gpu", "step", "cuda", [{"labels": {"row": "step"}, "check": {"passed": False}}])
    work = "| 2 weak views by DALI (batch 64, 1,024 images) |"
    pillow = "3.5x faster than a DataLoader with Pillow (500 ms vs 1.8 s, n = 7, 400-625 ms vs 900 ms - 2.0 s)"
    reader = "2.0x slower than one DALI reader per view (500 ms vs 250 ms, n = 7, 400-625 ms vs 200-250 ms)"
    rows = [*bench.HEAD, f"{work} {pillow} | `data.json` |", f"{work} {reader} | `data.json` |"]
    assert bench.table(tmp_path) == [
        "**Chip, 4 cores** (`bench/results/cpu/`)", "", *rows, "",
        "**Chip** (`bench/results/gpu/`)", "", *rows,
    ]  # fmt: skip


def test_page_shows_the_committed_guard_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_named("guard_table", monkeypatch)
    records = json.loads(bench.RESULT.read_text(encoding="utf-8"))["runs"]
    text = bench.PAGE.read_text(encoding="utf-8")
    assert text.split(bench.BEGIN)[1].split(bench.END)[0].strip().splitlines() == bench.tables(records)
