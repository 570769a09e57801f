"""parallel.mode=co on one process; test_ranks.py tests it on several, checkpoint/test_resume.py its stops."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import StopAfter, assert_same_run, metrics, run, small_config

from fastcpc import distributed
from fastcpc.distributed import batch_scaling
from fastcpc.engine import launch as engine_start
from fastcpc.engine.step_loop import Stopped
from fastcpc.engine.trainer import Trainer
from fastcpc.errors import InputError

CO = {"parallel": {"mode": "co"}}


class Reference(Trainer):
    """The plain form: network 2 trains with a copy of network 1 from before the epoch."""

    def outline(self, epoch: int) -> list[tuple[str, Callable[[], None]]]:
        if epoch < self.config.train.warmup_epochs:
            return super().outline(epoch)
        first = self.learners[0]
        train_first, train_second = self.schedule.stages(epoch, guesses=True)
        copies: list[Any] = []

        def clean() -> None:
            self.clean(epoch)
            copies.append(copy.deepcopy(first.network))

        def train_with_copy() -> None:
            trained, first.network = first.network, copies[0]
            self.record_passes(train_second())
            first.network = trained

        return [
            ("clean", clean),
            ("train", lambda: self.record_passes(train_first())),
            ("train", train_with_copy),
            ("eval", self.evaluate),
        ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("co") / "run"
    run(small_config(folder, **CO))
    return folder


def test_co_training_equals_its_plain_form(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It differs from Algorithm 1 from the first epoch after the warm-up on."""
    run(small_config(tmp_path / "data"))
    monkeypatch.setattr(engine_start, "Trainer", Reference)
    run(small_config(tmp_path / "reference"))
    assert_same_run(tmp_path / "reference", whole)
    lines, others = metrics(whole), metrics(tmp_path / "data")
    assert lines[0] == others[0]
    assert lines[1]["loss_total"][0] == others[1]["loss_total"][0]
    assert lines[1]["loss_unlabelled"][1] != others[1]["loss_unlabelled"][1]
    said = "parallel.mode=co: both networks are trained at once, each with the other as it was when the epoch began"
    assert said in (whole / "train.log").read_text()


def test_mode_may_not_change_inside_an_epoch(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run(small_config(tmp_path / "co", **CO), StopAfter(30))
    with pytest.raises(
        InputError, match=r"stopped inside an epoch with parallel\.mode=co: resume with that mode, or start"
    ):
        run(small_config(tmp_path / "data", run={"resume": str(tmp_path / "co")}))
    assert run(small_config(tmp_path / "on", run={"resume": str(whole)}))["finished"]  # from an epoch's end all is well


def test_co_training_needs_an_even_number_of_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    with pytest.raises(InputError, match=r"^parallel\.mode=co: .* and 3 have no half; start an even number, or one$"):
        batch_scaling.connect_groups(small_config(tmp_path, **CO), torch.device("cpu"))
