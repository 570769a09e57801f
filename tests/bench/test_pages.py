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
    "suspects": "README.md",
    "clothing_table": "README.md",
    "digits_figure": "docs/results.md",
    "readme_figures": "README.md",
}


def bench_named(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    for loaded in ("harness", "pages", "digits_grid", name):
        monkeypatch.delitem(sys.modules, loaded, raising=False)
    return importlib.import_module(name)


@pytest.mark.parametrize("name", list(PAGES))
def test_a_table_finds_its_place(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_named(name, monkeypatch)
    page = tmp_path / "page.md"
    page.write_text((ROOT / PAGES[name]).read_text(encoding="utf-8"), encoding="utf-8")
    bench.put_between(bench.BEGIN, bench.END, ["| new |"], page)
    text = page.read_text(encoding="utf-8")
    assert f"{bench.BEGIN}\n| new |\n{bench.END}" in text
    assert text.count(bench.BEGIN) == text.count(bench.END) == 1


def test_readme_shows_the_committed_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_named("readme_figures", monkeypatch)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.split(bench.BEGIN)[1].split(bench.END)[0].strip().splitlines() == bench.table()


def written(folder: Path, name: str, device: str, rows: list[dict[str, Any]]) -> None:
    folder.mkdir(exist_ok=True)
    machine = {"name": "Chip", "cores": 4, "device": device}
    (folder / f"{name}.json").write_text(json.dumps({"machine": machine, "rows": rows}), encoding="ascii")


def test_figures_are_of_rows_that_passed_and_absolute_on_a_gpu_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = bench_named("readme_figures", monkeypatch)
    seconds = {name: {"median": value} for name, value in {"dali": 0.5, "DataLoader Pillow": 2.0}.items()}
    labels = {"views": "2 weak", "batch": 64, "photos": 1024}
    row = {"labels": labels, "check": {"passed": True}, "subject": "dali", "seconds": seconds}
    written(tmp_path / "cpu", "data", "cpu", [row])
    written(tmp_path / "gpu", "data", "cuda", [row])
    written(tmp_path / "gpu", "step", "cuda", [{"labels": {"row": "step"}, "check": {"passed": False}}])
    what, less = "| photos to 2 weak views, by DALI (batch 64, 1,024 photos) | ", f"4 x less than {bench.FEEDS[0][1]}"
    assert bench.table(tmp_path)[2:] == [
        f"{what}{less} | [Chip, 4 cores](bench/results/cpu/data.json) |",
        f"{what}500 ms, {less} | [Chip](bench/results/gpu/data.json) |",
    ]
