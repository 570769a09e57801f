"""The report of a finished run, and a browser for it, once per test file."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import browser
from finished_run import change_predictions, finished_run
from selenium.webdriver import Chrome

from fastcpc.report.html.page import run_page
from fastcpc.report.results.run import read_run


@pytest.fixture(scope="module")
def report_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run and its report.html; the browser downloads to it."""
    folder = tmp_path_factory.mktemp("report")
    change_predictions(finished_run(folder / "run"))
    (folder / "report.html").write_text(run_page(read_run(folder / "run")), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def chrome(report_folder: Path) -> Iterator[Chrome]:
    with browser(report_folder) as chrome:
        yield chrome
