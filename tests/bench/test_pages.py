"""Benches write their tables between markers: each pair must be in the page that the bench names."""

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = {
    "digits_table": "README.md",
    "suspects": "README.md",
    "clothing_table": "README.md",
    "digits_figure": "docs/results.md",
}


@pytest.mark.parametrize("name", list(PAGES))
def test_a_table_finds_its_place(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    for loaded in ("harness", "digits_grid", name):
        monkeypatch.delitem(sys.modules, loaded, raising=False)
    bench = importlib.import_module(name)
    page = tmp_path / "page.md"
    page.write_text((ROOT / PAGES[name]).read_text(encoding="utf-8"), encoding="utf-8")
    bench.put_between(bench.BEGIN, bench.END, ["| new |"], page)
    text = page.read_text(encoding="utf-8")
    assert f"{bench.BEGIN}\n| new |\n{bench.END}" in text
    assert text.count(bench.BEGIN) == text.count(bench.END) == 1
