"""A run that was stopped, and whose images or labels have changed since: refused in a line, or resumed by path."""

import json
import re
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from changed_images import Change, config_of, copied, sixty_images, stopped_run
from image_sets import jpeg
from several_ranks import SUPPORT, on_ranks, run_to_end
from small_run import small_config

from fastcpc.cli import clean, prepare, report, train
from fastcpc.cli import eval as evaluate
from fastcpc.config.load import to_yaml
from fastcpc.data.registry import load_dataset
from fastcpc.engine import trainer
from fastcpc.engine.checkpoint.changed_data import Change as DataChange
from fastcpc.engine.checkpoint.format import load, metadata, pack, serialise
from fastcpc.engine.checkpoint.resume import find_checkpoint
from fastcpc.engine.outputs.data_record import read_record

LOOKS = 20  # inside the pass of network 1 in epoch 2
REMOVED = "train/green/g007.jpg"


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, a run that stopped in its third epoch, after the second cleaning, and its config."""
    place = tmp_path_factory.mktemp("stopped")
    folder = stopped_run(config_of(sixty_images(place / "images"), place / "run"), LOOKS)
    position = load(find_checkpoint(folder, "latest"))[1]["position"]
    assert position["epoch"] == 2 and position["stage"] == 1 and position["step"] > 0, position
    return place


@pytest.fixture
def place(stopped: Path, tmp_path: Path) -> Path:
    return copied(stopped, tmp_path / "copy")


def resume(place: Path, *options: str) -> int:
    return train.main(["--config", str(place / "run.yaml"), *options])


def the_line(capsys: pytest.CaptureFixture[str], program: str) -> str:
    """The only error line of a command."""
    found = [line for line in capsys.readouterr().err.splitlines() if f"{program}: error: " in line]
    assert len(found) == 1, found
    return found[0]


def remove(root: Path) -> None:
    (root / REMOVED).unlink()


def rename(root: Path) -> None:
    (root / REMOVED).rename(root / "train" / "green" / "new.jpg")


def relabel(root: Path) -> None:
    (root / REMOVED).rename(root / "train" / "red" / "g007.jpg")


def add(root: Path) -> None:
    (root / "train" / "blue" / "0000.jpg").write_bytes(jpeg(77))


CHANGES: list[tuple[Change, str, int]] = [
    (remove, r"train: 60 images then, 59 now; 1 removed \(first train/green/g007.jpg\)", 59),
    (rename, r"train: 60 images then, 60 now; 1 renamed \(first train/green/g007.jpg -> train/green/new.jpg\)", 60),
    (relabel, r"60 now; 1 relabelled \(first train/green/g007.jpg -> train/red/g007.jpg\)", 60),
    (add, r"train: 60 images then, 61 now; 1 added \(first train/blue/0000.jpg\)", 61),
]


@pytest.mark.parametrize(("change", "message", "num_now"), CHANGES)
def test_a_changed_data_set_is_refused_and_accepted_on_request(
    change: Change, message: str, num_now: int, place: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    run, checkpoint = place / "run", find_checkpoint(place / "run", "latest")
    before = load(checkpoint)[1]
    dataset = load_dataset(config_of(place / "images", run).data)
    old_names, old_labels = dataset.train.names, dataset.train.labels
    change(place / "images")
    assert resume(place) == 2
    line = the_line(capsys, "fastcpc-train")
    assert re.search(message, line) and line.endswith(
        "restore the data set, start a new run (another run.dir), or resume with --accept-changed-data"
    )
    mapped: list[Any] = []
    honest = trainer.map_samples

    def noted(state: Any, found: DataChange) -> Any:
        mapped.append(honest(state, found))
        return mapped[0]

    monkeypatch.setattr(trainer, "map_samples", noted)
    assert resume(place, "--accept-changed-data") == 0
    now = load_dataset(config_of(place / "images", run).data).train
    assert len(now) == num_now and mapped[0]["position"] == {"epoch": 2, "stage": 0, "step": 0}
    old = {name: row for row, name in enumerate(old_names)}
    num_known = 0
    for i, member in enumerate(mapped[0]["members"]):
        was = before["members"][i]
        # the interrupted epoch cleans again: its row of the history is dropped
        assert member["history"].shape == (1, num_now) and was["history"].shape == (2, 60)
        for row, name in enumerate(now.names):
            clean_prob, history = member["partition"][1][row], member["history"][0, row]
            if name in old:
                assert old_labels[old[name]] == now.labels[row]
                assert history == was["history"][0, old[name]]
                assert member["partition"][0][row] == was["partition"][0][old[name]]
                assert clean_prob == was["partition"][1][old[name]]
                num_known += 1
            else:
                assert torch.isnan(history) and torch.isnan(clean_prob) and not member["partition"][0][row]
    assert num_known == 2 * (60 if change is add else 59)
    table = pq.read_table(run / "clean_probabilities.parquet")
    assert table["path"].to_pylist() == list(now.names)
    assert np.isfinite(table["q_gmm_1"].to_numpy()).all()
    assert np.load(run / "pred_probs.npy").shape == (num_now, 3)
    with np.load(run / "scores_first.npz") as first:
        assert first["loss"].shape == (2, num_now)
        assert np.isfinite(first["loss"]).sum() == num_known
    assert json.loads((run / "summary.json").read_text())["finished"]
    if change is add:  # NaN in the scores of the first cleaning
        assert report.main([str(run)]) == 0 and clean.main([str(run)]) == 0


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, whose process got SIGKILL in its third epoch; its last checkpoint is of the second epoch's end."""
    place = tmp_path_factory.mktemp("killed")
    config = config_of(sixty_images(place / "images"), place / "run")
    (place / "run.yaml").write_text(to_yaml(config))
    accident = json.dumps([[0, LOOKS, "SIGKILL", "self"]])
    command = [sys.executable, str(SUPPORT / "unlucky_train.py"), accident, "--config", str(place / "run.yaml")]
    done = run_to_end(command, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert load(find_checkpoint(place / "run", "latest"))[1]["position"] == {"epoch": 2, "stage": 0, "step": 0}
    return place


@pytest.mark.parametrize(("change", "message", "num_now"), CHANGES)
def test_each_change_of_the_images_of_a_killed_run(
    change: Change, message: str, num_now: int, killed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = copied(killed, tmp_path / "copy")
    change(place / "images")
    assert resume(place) == 2
    assert re.search(message, the_line(capsys, "fastcpc-train"))
    assert resume(place, "--accept-changed-data") == 0
    assert json.loads((place / "run" / "summary.json").read_text())["finished"]
    assert len(pq.read_table(place / "run" / "clean_probabilities.parquet")) == num_now


def test_a_killed_run_keeps_the_whole_history(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a kill the last checkpoint is of an epoch's end: no cleaning is repeated."""
    shutil.rmtree(place / "run/checkpoints/epoch_0002")
    before = load(find_checkpoint(place / "run", "latest"))[1]
    assert before["position"] == {"epoch": 2, "stage": 0, "step": 0}
    mapped: list[Any] = []
    honest = trainer.map_samples
    monkeypatch.setattr(trainer, "map_samples", lambda *given: mapped.append(honest(*given)) or mapped[0])
    remove(place / "images")
    assert resume(place, "--accept-changed-data") == 0
    kept = [row for row in range(60) if row != 27]  # the 8th of the second class
    for was, member in zip(before["members"], mapped[0]["members"], strict=True):
        assert was["history"].shape == (1, 60) and member["history"].equal(was["history"][:, kept])
        assert member["partition"][0].equal(was["partition"][0][kept])


def test_the_accepted_data_set_is_the_run_s_own(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digest = metadata(find_checkpoint(place / "run", "latest"))["data"]
    remove(place / "images")
    assert resume(place, "--accept-changed-data") == 0
    assert "59 training images keep their state, 0 start unscored, 1 are dropped" in capsys.readouterr().err
    assert metadata(find_checkpoint(place / "run", "latest"))["data"] != digest
    assert (place / "run" / f"samples_{digest[:8]}.parquet").exists()
    (place / "images" / REMOVED).write_bytes(jpeg(5))
    assert evaluate.main([str(place / "run"), "--device", "cpu"]) == 0  # the test part is the same
    assert clean.main([str(place / "run"), "--cleaned-list", str(place / "kept.csv")]) == 2
    line = the_line(capsys, "fastcpc-clean")
    assert "59 images then, 60 now; 1 added" in line and not (place / "kept.csv").exists()


def test_a_moved_data_set_resumes(place: Path) -> None:
    (place / "images").rename(place / "elsewhere")
    assert resume(place, f"data.root={place / 'elsewhere'}") == 0


def test_a_refused_start_leaves_the_settings_of_the_run(place: Path) -> None:
    config = (place / "run" / "config.yaml").read_text()
    assert resume(place, f"data.root={sixty_images(place / 'other', each=19)}") == 2
    assert (place / "run" / "config.yaml").read_text() == config
    assert evaluate.main([str(place / "run"), "--device", "cpu"]) == 0


def test_a_renamed_class_is_never_accepted(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part in ("train", "test"):
        (place / "images" / part / "green").rename(place / "images" / part / "grass")
    for options in ([], ["--accept-changed-data"]):
        assert resume(place, *options) == 2
        line = the_line(capsys, "fastcpc-train")
        assert "3 classes then, 3 now; renamed: green -> grass" in line and "a run cannot change them" in line


def test_a_changed_test_part_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "images/test/red/r001.jpg").unlink()
    assert resume(place) == 2
    assert "(test: 12 images then, 11 now; 1 removed (first test/red/r001.jpg))" in the_line(capsys, "fastcpc-train")
    assert evaluate.main([str(place / "run"), "--device", "cpu"]) == 2
    assert "1 removed (first test/red/r001.jpg)" in the_line(capsys, "fastcpc-eval")
    assert resume(place, "--accept-changed-data") == 0
    assert "60 training images keep their state, 0 start unscored, 0 are dropped" in capsys.readouterr().err


def test_a_run_of_an_earlier_version_is_resumed_with_a_note(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forget_record(place / "run")
    assert resume(place) == 0
    assert capsys.readouterr().err.count("(an earlier version trained it): the data set cannot be compared") == 1
    assert (place / "run" / "samples.parquet").exists()


def test_a_run_of_an_earlier_version_still_counts_its_labels(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forget_record(place / "run")
    remove(place / "images")
    assert resume(place) == 2
    assert "train: 60 images then, 59 now" in the_line(capsys, "fastcpc-train")
    (place / "run" / "labels.npz").unlink()
    assert resume(place) == 2
    line = the_line(capsys, "fastcpc-train")
    assert "the run has 60 training images, the data set has 59 now" in line


def test_all_ranks_refuse_in_one_line_and_accept_together(place: Path) -> None:
    remove(place / "images")
    said = on_ranks(2, "changed_images:refused_then_accepted", place / "run.yaml").splitlines()
    errors = sorted(line for line in said if line.startswith("rank "))
    assert len(errors) == 2 and all(", reported True: data.root=" in line for line in errors)
    assert errors[0].removeprefix("rank 0") == errors[1].removeprefix("rank 1")
    assert "60 images then, 59 now; 1 removed" in errors[0]
    assert json.loads((place / "run" / "summary.json").read_text())["world_size"] == 2


def forget_record(run: Path) -> None:
    """Take out what earlier versions did not write."""
    (run / "samples.parquet").unlink()
    for path in (run / "checkpoints").glob("epoch_*"):
        without_digest(path)


def without_digest(checkpoint: Path) -> None:
    """Write a checkpoint again with the header that earlier versions wrote."""
    networks, state = load(checkpoint)
    for name, content in serialise(pack(int(checkpoint.name[-4:]), networks, state), {"model": "small_cnn"}).items():
        (checkpoint / name).write_bytes(content)


def test_other_labels_in_the_label_file_are_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "labels.npy"
    labels = load_dataset(small_config(tmp_path).data).train.labels.copy()
    np.save(file, labels)
    noise = {"kind": "file", "rate": 0.0, "file": str(file)}
    config = small_config(tmp_path / "run", noise=noise, data={"subset": 120})
    folder = stopped_run(config, 20)
    np.savez(tmp_path / "same.npz", labels=labels)
    arguments = ["--config", str(folder.with_suffix(".yaml"))]
    labels[700] = (labels[700] + 1) % 10  # whether or not the run trains on it
    np.save(file, labels)
    assert train.main(arguments) == 2
    line = the_line(capsys, "fastcpc-train")
    assert "1 relabelled (first train/" in line and "noise.file has other content" in line
    assert train.main([*arguments, f"noise.file={tmp_path / 'same.npz'}"]) == 0  # the same labels in another form


def held_out_run(tmp_path: Path) -> Path:
    """A stopped run without a test part: one folder per class."""
    stopped_run(config_of(sixty_images(tmp_path / "images", ("",)), tmp_path / "run"), 20)
    return tmp_path


def test_held_out_images_stay_held_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = held_out_run(tmp_path)
    before = read_record(place / "run")
    for name in ("a.jpg", "b.jpg"):
        (place / "images" / "blue" / name).write_bytes(jpeg(50))
    fresh = load_dataset(config_of(place / "images", place / "run").data).tests["test"].names
    assert before is not None and set(fresh) != set(before.parts["test"].names), "the draw of the test is too lucky"
    assert evaluate.main([str(place / "run"), "--device", "cpu"]) == 0
    assert resume(place) == 2
    assert "(train: 54 images then, 56 now; 2 added (first blue/a.jpg))" in the_line(capsys, "fastcpc-train")
    assert resume(place, "--accept-changed-data") == 0
    after = read_record(place / "run")
    assert after is not None and after.parts["train"].num_used == 56
    assert after.parts["test"].digest == before.parts["test"].digest


def test_a_class_folder_that_is_renamed_or_added_stops_eval_and_clean(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert resume(place) == 0
    (place / "images/train/aqua").mkdir()
    (place / "images/train/aqua/x.jpg").write_bytes(jpeg(3))
    for program, command in (
        ("fastcpc-eval", lambda: evaluate.main([str(place / "run"), "--device", "cpu"])),
        ("fastcpc-clean", lambda: clean.main([str(place / "run"), "--force", "--cleaned-list", str(place / "k.csv")])),
    ):
        assert command() == 2
        assert "3 classes then, 4 now; 1 added (first aqua)" in the_line(capsys, program)
    (place / "run" / "samples.parquet").unlink()  # an earlier version kept the classes in labels.npz
    assert evaluate.main([str(place / "run"), "--device", "cpu"]) == 2
    assert "3 classes then, 4 now; 1 added (first aqua)" in the_line(capsys, "fastcpc-eval")
    assert clean.main([str(place / "run"), "--force"]) == 0  # reads no image


def test_prepare_between_stop_and_resume(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "images" / REMOVED).write_bytes(b"no image")
    assert prepare.main(["imagefolder", "--root", str(place / "images"), "--jobs", "1", "--max-bad", "0.1"]) == 0
    capsys.readouterr()
    assert resume(place) == 2
    line = the_line(capsys, "fastcpc-train")
    assert "train: 60 images then, 59 now; 1 broken now (first train/green/g007.jpg)" in line
    assert resume(place, "--accept-changed-data") == 0
