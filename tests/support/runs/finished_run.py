"""One finished run of a few seconds for the tests that read runs: trained once a test session, copied for each test."""

import atexit
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from small_run import run, small_config

from fastcpc.report.html.page import run_page
from fastcpc.report.results.run import read_run


@cache
def _trained(kind: str) -> Path:
    place = Path(mkdtemp(prefix="fastcpc-finished-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    run(small_config(place / "run", kind))
    return place / "run"


def finished_run(target: Path, kind: str = "cpc_awr") -> Path:
    """A copy of a finished run of digits (240 samples, 4 epochs, 40 % symmetric noise) at target."""
    shutil.copytree(_trained(kind), target)
    return target


def change_predictions(run: Path) -> None:
    """So short a run predicts one class only: let it be three in turn, one, two and three above the given one."""
    path = run / "clean_probabilities.parquet"
    table = pq.read_table(path)
    given = table["given_label"].to_numpy()
    column = pa.array((given + 1 + np.arange(len(given)) % 3) % 10)
    place = table.column_names.index("predicted_label")
    pq.write_table(table.set_column(place, "predicted_label", column), path)


def finished_report(folder: Path) -> Path:
    """A folder with a finished run, and report.html of it."""
    change_predictions(finished_run(folder / "run"))
    (folder / "report.html").write_text(run_page(read_run(folder / "run")), encoding="utf-8")
    return folder
