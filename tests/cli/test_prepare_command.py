"""fastcpc-prepare: its output, files and exit codes."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import image_sets
import pyarrow.parquet as pq
import pytest

from fastcpc.cli.actions import prepare as action
from fastcpc.cli.prepare import main
from fastcpc.config.schema import DataConfig
from fastcpc.data.registry import load_dataset

Capture = pytest.CaptureFixture[str]
FINE = image_sets.jpeg(3, (64, 48))


def names_below(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_a_complete_image_folder(tmp_path: Path, capsys: Capture) -> None:
    root = image_sets.imagefolder(tmp_path, {"train/a": 3, "train/b": 5, "test/a": 2})
    before = names_below(root)
    assert main(["imagefolder", "--root", str(root), "--jobs", "1"]) == 0
    out = capsys.readouterr().out
    assert "imagefolder: test/, train/ with one folder per class; 2 classes" in out
    assert "  train: 8 images; fewest 3 (a), most 5 (b)" in out
    assert "all 10 images decode" in out
    index = root / ".fastcpc-index" / "imagefolder.parquet"
    assert pq.read_table(index).num_rows == 10
    assert names_below(root) == sorted([*before, *(f".fastcpc-index/imagefolder{e}" for e in (".bad.txt", ".parquet"))])
    assert main(["imagefolder", "--root", str(root), "--jobs", "1"]) == 0  # its own folder is no class


def test_broken_images_are_listed_by_name_and_reason(tmp_path: Path, capsys: Capture) -> None:
    root = image_sets.imagefolder(tmp_path / "s", {"train/a": 30, "train/b": 30, "test/a": 2})
    image_sets.put(root / "train/a/007.jpg", FINE[:700])
    image_sets.put(root / "train/b/008.jpg", b"")
    image_sets.put(root / "train/b/009.jpg", image_sets.jpeg(0, (64, 48), "CMYK"))
    out_file = tmp_path / "elsewhere" / "i.parquet"
    arguments = ["imagefolder", "--root", str(root), "--out", str(out_file), "--jobs", "2", "--max-bad"]
    assert main([*arguments, "0.05"]) == 0
    captured = capsys.readouterr()
    assert "2 of 62 images are broken;" in captured.out
    assert "  broken: train/b/008.jpg: the file is empty" in captured.out
    assert "  note: CMYK instead of RGB: 1 images, such as train/b/009.jpg" in captured.out
    assert f"training reads it with data.index={out_file}" in captured.out
    bad = (tmp_path / "elsewhere/i.bad.txt").read_text().splitlines()
    assert bad[0].startswith("train/a/007.jpg\timage file is truncated")
    assert bad[1] == "train/b/008.jpg\tthe file is empty" and len(bad) == 2
    assert not (root / ".fastcpc-index").exists()
    data = DataConfig(name="imagefolder", root=str(root), index=str(out_file), max_bad=0.05)
    assert load_dataset(data).broken == (7, 38)
    assert main([*arguments, "0.03"]) == 1
    assert "error: train: 2 of 60 images are broken; data.max_bad=0.03 allows 1" in capsys.readouterr().err


def test_a_broken_test_image_fails(tmp_path: Path, capsys: Capture) -> None:
    root = image_sets.imagefolder(tmp_path, {"train/a": 3, "train/b": 3, "test/a": 2})
    image_sets.put(root / "test/a/000.jpg", b"GIF89a")
    assert main(["imagefolder", "--root", str(root), "--jobs", "1", "--max-bad", "1"]) == 1
    captured = capsys.readouterr()
    assert "fastcpc-prepare: error: test: 1 of 2 images are broken; none is allowed" in captured.err
    assert "test/a/000.jpg\t" in (root / ".fastcpc-index/imagefolder.bad.txt").read_text()


def test_clothing1m_with_a_missing_file(tmp_path: Path, capsys: Capture) -> None:
    root = image_sets.clothing1m(tmp_path)
    (root / "images/5/0/e.jpg").unlink()
    assert main(["clothing1m", "--root", str(root), "--jobs", "1"]) == 1
    captured = capsys.readouterr()
    assert "train: 6 images; fewest 0 (Windbreaker), most 1 (T-Shirt); 1 with a true label" in captured.out
    assert "note: val: 2 images listed, 14,313 were published" in captured.out
    assert "broken: images/5/0/e.jpg: no such file" in captured.out


def test_webvision_counts_each_image_once(tmp_path: Path, capsys: Capture) -> None:
    root = image_sets.webvision(tmp_path / "w")
    image_sets.ILSVRC12["number"](tmp_path / "i", 2)
    arguments = ["--root", str(root), "--ilsvrc12", str(tmp_path / "i"), "--num-classes", "2", "--flickr"]
    assert main(["webvision", *arguments, "--jobs", "1"]) == 0
    out = capsys.readouterr().out
    assert "WebVision 1.0, Google and Flickr list, first 2 classes" in out
    assert "all 208 images decode" in out  # 8 for training, 100 of each test set
    assert "which cannot be verified" in out
    data = DataConfig(
        name="webvision", root=str(root), num_classes=2, flickr=True, ilsvrc12=str(tmp_path / "i"), max_bad=0
    )
    assert load_dataset(data).broken == ()


def test_a_data_set_of_arrays_needs_no_index(capsys: Capture) -> None:
    assert main(["digits"]) == 0
    assert capsys.readouterr().out.startswith("digits: train 1,437, test 360 images, 10 classes; files are complete")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["imagefolder"], "data.root is empty: data.name=imagefolder needs the folder of its files"),
        (["imagefolder", "--root", "ROOT/none"], "none: no such folder"),
        (["clothing1m", "--root", "ROOT"], "no Clothing1M images here; expected images/0"),
        (["webvision", "--root", "ROOT"], "synsets.txt is missing; sought in"),
        (["webvision", "--root", "ROOT", "--num-classes", "1"], "data.num_classes=1: must be in [2, 1000]"),
        (["clothing1m", "--root", "ROOT", "--list", "x"], "data.list=x: is read only with data.name=imagefolder"),
        (["imagefolder", "--root", "ROOT", "--jobs", "0"], "'0' is not a whole number above 0"),
        (["mnist", "--root", "ROOT"], "invalid choice: 'mnist'"),
        (["imagefolder", "--root", "ROOT", "--out", "ROOT/train/a/000.jpg/i"], "cannot be created (File exists)"),
    ],
)
def test_wrong_arguments_give_exit_code_2_and_one_line(
    tmp_path: Path, capsys: Capture, arguments: list[str], message: str
) -> None:
    image_sets.imagefolder(tmp_path, {"train/a": 1, "train/b": 1, "test/a": 1})
    before = names_below(tmp_path)
    assert main([text.replace("ROOT", str(tmp_path)) for text in arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and error.startswith("fastcpc-prepare: error: ")
    assert names_below(tmp_path) == before


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_sigterm_ends_it_without_files(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, jobs: str
) -> None:
    root = image_sets.imagefolder(tmp_path, {"train/a": 40, "train/b": 40, "test/a": 2})
    before, handler = names_below(root), signal.getsignal(signal.SIGTERM)
    whole = action.with_progress

    def interrupted(found: Iterator[action.Checked], total: int) -> Iterator[action.Checked]:
        for number, one in enumerate(whole(found, total)):
            if number == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            yield one

    monkeypatch.setattr(action, "with_progress", interrupted)
    assert main(["imagefolder", "--root", str(root), "--jobs", jobs, "--cache"]) == 143
    assert "stopped by SIGTERM; nothing is written" in capsys.readouterr().err
    assert names_below(root) == before and signal.getsignal(signal.SIGTERM) == handler
    assert not multiprocessing.active_children()


def test_a_batch_job_gets_lines_of_progress(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(action, "PROGRESS_SECONDS", 0.0)
    root = image_sets.imagefolder(tmp_path, {"train/a": 2, "train/b": 1, "test/a": 1})
    assert main(["imagefolder", "--root", str(root), "--jobs", "1"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" images decoded, ")[0] for line in lines] == [f"{n} of 4" for n in (1, 2, 3, 4)]


def test_a_read_only_folder(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    root = image_sets.imagefolder(tmp_path, {"train/a": 1, "train/b": 1, "test/a": 1})
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert main(["imagefolder", "--root", str(root), "--jobs", "1"]) == 2
    assert ".fastcpc-index: is not writable; give another file for the index with --out" in capsys.readouterr().err


def test_help_names_every_data_set(capsys: Capture) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for name in ("clothing1m", "webvision", "imagefolder", "--ilsvrc12", "--out", "0.001"):
        assert name in out
