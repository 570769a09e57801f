"""A cleaner of one's own: registered by name, trained with, and shown by the report, without a change in fastcpc/."""

import csv
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from small_run import metrics, run, small_config

from fastcpc.cleaner.base import Cleaner, CleanerInput, CleanerResult
from fastcpc.cleaner.registry import (
    cleaners_of,
    prototype_similarity,
    register_cleaner,
    registered_cleaners,
    unregister_cleaner,
)
from fastcpc.cli import clean as clean_command
from fastcpc.cli import report as report_command
from fastcpc.config import names
from fastcpc.config.load import load_config, to_yaml
from fastcpc.errors import InputError


class SmallLoss(Cleaner):
    """The clean probability is 1 minus the normalised loss."""

    name = "toy"

    def clean(self, data: CleanerInput) -> CleanerResult:
        return CleanerResult(1 - data.values_N, notes=("the toy cleaner ran",))


@pytest.fixture
def toy() -> Iterator[None]:
    register_cleaner("toy", SmallLoss)
    register_cleaner("gmm_then_toy", SmallLoss, ("gmm_awr", "toy"))
    yield
    for name in ("toy", "gmm_then_toy"):
        unregister_cleaner(name)


def test_every_name_has_a_cleaner() -> None:
    used = {name for row in names.CLEANER_KINDS.values() for name in row}
    assert used == set(registered_cleaners())
    assert {kind: [cleaner.name for cleaner in cleaners_of(kind)] for kind in names.CLEANER_KINDS} == {
        "none": [], "gmm_agn": ["gmm"], "gmm_awr": ["gmm"], "cpc_agn": ["gmm", "cpc"], "cpc_awr": ["gmm", "cpc"],
        "cpc_only": ["cpc"], "confusion": ["confusion"], "cpc_confusion": ["confusion", "cpc"],
    }  # fmt: skip
    kinds = ("none", "gmm_awr", "cpc_awr", "cpc_only")
    assert [prototype_similarity(kind) for kind in kinds] == [None, None, "dot", "cosine"]


@pytest.mark.usefixtures("toy")
def test_new_cleaner_trains_and_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "run"
    config = small_config(folder, "toy", train={"epochs": 2, "lr_drop_epoch": 2}, cleaner={"warmup": 0.0})
    assert run(config)["finished"]
    assert "network 1: the toy cleaner ran" in caplog.text
    assert all(0 <= value <= 1 for value in metrics(folder)[-1]["auc_toy"])

    table = pq.read_table(folder / "clean_probabilities.parquet")
    names_of_q = [name for name in table.column_names if name.startswith("q_")]
    assert names_of_q == ["q_gmm_1", "q_gmm_2", "q_cpc_1", "q_cpc_2", "q_toy_1", "q_toy_2"]
    q = torch.tensor([table["q_toy_1"].to_pylist(), table["q_toy_2"].to_pylist()])
    assert q.min() == 0 and q.max() == 1 and table["q_gmm_1"].null_count == len(table)
    torch.testing.assert_close(q.mean(0), torch.tensor(table["clean_probability"].to_pylist()))

    assert report_command.main([str(folder)]) == 0
    assert "toy" in (folder / "report.html").read_text()
    assert clean_command.main([str(folder), "--out", str(tmp_path / "suspects.csv")]) == 0
    with (tmp_path / "suspects.csv").open() as file:
        assert {"q_toy_1", "q_toy_2"} <= set(csv.DictReader(file).fieldnames or ())


@pytest.mark.usefixtures("toy")
def test_last_cleaner_is_active(tmp_path: Path) -> None:
    config = small_config(tmp_path, "gmm_then_toy", train={"epochs": 3, "lr_drop_epoch": 2}, cleaner={"warmup": 0.0})
    run(config)
    table = pq.read_table(tmp_path / "clean_probabilities.parquet")
    toy_N = torch.tensor([table["q_toy_1"].to_pylist(), table["q_toy_2"].to_pylist()]).mean(0)
    torch.testing.assert_close(toy_N, torch.tensor(table["clean_probability"].to_pylist()))
    assert table["q_gmm_1"].null_count == 0


def test_unknown_cleaner_is_refused(tmp_path: Path) -> None:
    text = to_yaml(small_config(tmp_path)).replace("kind: cpc_awr", "kind: cpc_awrr")
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=r"cleaner.kind=cpc_awrr: must be none, .*did you mean cpc_awr"):
        load_config([tmp_path / "config.yaml"], [])
