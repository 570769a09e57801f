"""parallel.mode=co on one process; tests/engine/runs/test_ranks.py has it on several."""

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
    """The variant in plain words: network 2 is trained with a copy of network 1 that was made before either was."""

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


def test_it_is_the_variant_in_plain_words(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not Algorithm 1: the warm-up is the same, the first epoch that guesses is not."""
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


@pytest.mark.parametrize("looks", [12, 25, 37])
def test_a_stop_anywhere_changes_nothing(looks: int, whole: Path, tmp_path: Path) -> None:
    config = small_config(tmp_path / "run", **CO)
    with pytest.raises(Stopped):
        run(config, StopAfter(looks))
    run(config)
    assert_same_run(whole, tmp_path / "run")


def test_modes_do_not_mix_inside_an_epoch(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run(small_config(tmp_path / "co", **CO), StopAfter(30))
    with pytest.raises(
        InputError, match=r"stopped inside an epoch with parallel\.mode=co: resume with that mode, or start"
    ):
        run(small_config(tmp_path / "data", run={"resume": str(tmp_path / "co")}))
    assert run(small_config(tmp_path / "on", run={"resume": str(whole)}))["finished"]  # from an epoch's end all is well


def test_an_odd_number_of_ranks_has_no_halves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    with pytest.raises(InputError, match=r"^parallel\.mode=co: .* and 3 have no half; start an even number, or one$"):
        batch_scaling.connect(small_config(tmp_path, **CO), torch.device("cpu"))
