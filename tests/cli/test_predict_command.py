"""fastcpc-predict: the same classes as evaluation in training; broken images are named."""

import csv
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from finished_run import finished_run
from image_sets import jpeg, put
from PIL import Image
from untrained_run import untrained_run

from fastcpc.cli import export
from fastcpc.cli import predict as command
from fastcpc.cli.actions import predict as action
from fastcpc.config.load import load_config
from fastcpc.data.dataset import ArraySplit, ImageSplit
from fastcpc.data.datasets.digits import load_digits_dataset
from fastcpc.data.image_files import IMAGE_ENDINGS
from fastcpc.data.loaders.factory import make_loader
from fastcpc.data.registry import inference_transform, load_dataset
from fastcpc.data.test_transform import center_crop_view
from fastcpc.errors import InputError
from fastcpc.report.export.predictions import find_images
from fastcpc.report.results.run import read_run

PHOTOS = (
    "data.name=imagefolder", "data.root=gone", "data.resize=40", "data.crop=32", "model.name=timm/resnet10t",
    "cpc.embedding_dim=16",
)  # fmt: skip


def save_digits(folder: Path, num: int) -> tuple[list[str], torch.Tensor]:
    """The first test images as grey PNG files, and their pixels."""
    part = load_digits_dataset().tests["test"]
    assert isinstance(part, ArraySplit)
    folder.mkdir()
    for row in range(num):
        Image.fromarray(part.pixels[row, 0].numpy()).save(folder / f"{row:03d}.png")
    return [str(folder / f"{row:03d}.png") for row in range(num)], part.pixels[:num]


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_run_and_export_predict_the_same_on_grey_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished_run(tmp_path / "run")
    paths, pixels = save_digits(tmp_path / "digits", 70)
    assert export.main([str(run)]) == 0
    for model, name in ((run, "a.csv"), (run / "model", "b.csv")):
        assert command.main([str(model), str(tmp_path / "digits"), "--out", str(tmp_path / name)]) == 0
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    rows = rows_of(tmp_path / "a.csv")
    assert [row["path"] for row in rows] == paths
    model = action.open_model(run)
    with torch.no_grad():
        probs = model.ensemble()(pixels.float() / 255).softmax(1)
    assert [int(row["predicted_label"]) for row in rows] == probs.argmax(1).tolist()
    np.testing.assert_allclose([float(row["p_3"]) for row in rows], probs[:, 3].numpy(), rtol=1e-4, atol=1e-6)
    first = capsys.readouterr().out.splitlines()[2]
    assert first == f"{probs[0].max():.4f} {probs[0].argmax()}  {paths[0]}"


def test_the_test_transform_equals_that_of_training(tmp_path: Path) -> None:
    for number, size in enumerate([(48, 40), (33, 70), (20, 20)]):
        for name in ("a", "b"):
            put(tmp_path / "photos" / name / f"{number}.jpg", jpeg(number, size))
    config = load_config([], [*PHOTOS, f"data.root={tmp_path / 'photos'}", "data.feed=torch"])
    dataset = load_dataset(config.data)
    assert isinstance(dataset.train, ImageSplit)
    loader = make_loader(dataset.train, dataset, config.data, config.augment, torch.device("cpu"))
    (batch,) = loader.stream([torch.arange(len(dataset.train))], ("test",), 0)
    inputs = inference_transform(config.data)
    views = torch.from_numpy(np.stack([center_crop_view(path, inputs) for path in dataset.train.paths])).float() / 255
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (inputs.mean, inputs.std))
    torch.testing.assert_close((views - mean) / std, batch.views[0].contiguous(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        ["data.name=digits"],
        ["data.name=imagefolder", "data.root={root}", "data.resize=40", "data.crop=32"],
    ],
)
def test_input_sizes_equal_those_of_the_data_set(tmp_path: Path, settings: list[str]) -> None:
    for name in ("a/1.jpg", "a/2.jpg", "b/1.jpg"):
        put(tmp_path / name, jpeg(1))
    config = load_config([], [text.format(root=tmp_path) for text in settings])
    dataset, inputs = load_dataset(config.data), inference_transform(config.data)
    assert (inputs.channels, inputs.crop) == (dataset.in_channels, dataset.image_size)
    assert (inputs.mean, inputs.std) == (dataset.mean, dataset.std)
    if dataset.image_transform is not None:
        assert (inputs.resize, inputs.crop) == (dataset.image_transform.resize, dataset.image_transform.crop)


def test_broken_images_are_named_and_the_others_predicted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = untrained_run(tmp_path / "run", ("cat", "=dog", "c,\nd"), *PHOTOS)
    folder = tmp_path / "p"
    put(folder / "a, b.jpg", jpeg(1))
    put(folder / "half.jpg", jpeg(2, (200, 150))[:900])
    put(folder / "empty.png", b"")
    put(folder / "deep" / "new\nline.JPG", jpeg(3))
    put(folder / "notes.txt", b"no image")
    out = tmp_path / "out.csv"
    assert command.main([str(run), str(folder), "--out", str(out), "--top", "9"]) == 1
    captured = capsys.readouterr()
    errors = captured.err.splitlines()
    assert errors.pop(0).startswith("fastcpc-predict: skipped: 1 files without an image's ending")
    assert len(errors) == 3 and errors[-1] == "fastcpc-predict: error: 2 of 4 images cannot be read"
    assert errors[0].startswith(f"fastcpc-predict: broken: {folder}/empty.png: the file is empty")
    assert len(captured.out.splitlines()) == 3  # two images and the line about the table
    rows = rows_of(out)
    assert [Path(row["path"]).name for row in rows] == ["a, b.jpg", "new\nline.JPG", "empty.png", "half.jpg"]
    assert rows[2]["predicted_label"] == "" and rows[2]["fault"] == "the file is empty"
    assert {row["predicted_class"] for row in rows} <= {"", "cat", "'=dog", "c,\nd"}
    assert sum(float(rows[0][f"p_{k}"]) for k in range(3)) == pytest.approx(1, abs=1e-5)


def test_files_patterns_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a/2.png", "a/1.jpg", "a/.hidden.jpg", "b[1].jpg", "odd.dat"):
        put(tmp_path / name, jpeg(1))
    assert find_images(["odd.dat", "a", "a/1.jpg"])[0] == ["odd.dat", "a/1.jpg", "a/2.png"]
    assert find_images(["**/*.png"]) == (["a/2.png"], [])
    assert find_images(["b[1].jpg"])[0] == ["b[1].jpg"]  # a name that looks like a pattern
    (tmp_path / "none").mkdir()
    for argument, message in (("*.gif", "no file matches"), ("none", "no images")):
        with pytest.raises(InputError, match=message):
            find_images([argument])


def test_skipped_files_are_counted_and_linked_folders_are_read(tmp_path: Path) -> None:
    for name in ("p/a/1.jfif", "p/.git/2.jpg", "p/b.heic", "p/c.HEIC", "p/notes.txt", "elsewhere/3.jpg"):
        put(tmp_path / name, jpeg(1))
    os.symlink(tmp_path / "elsewhere", tmp_path / "p" / "linked")
    os.symlink(tmp_path / "p", tmp_path / "p" / "a" / "loop")
    found, skipped = find_images([str(tmp_path / "p")])
    assert [os.path.relpath(path, tmp_path / "p") for path in found] == ["a/1.jfif", "linked/3.jpg"]
    assert [line.replace(str(tmp_path), "") for line in skipped] == [
        "skipped: 1 hidden files or folders; name a hidden folder to read it; such as /p/.git",
        "skipped: 2 images: HEIC has no reader here; convert it to JPEG; such as /p/b.heic",
        f"skipped: 1 files without an image's ending ({', '.join(IMAGE_ENDINGS)}); such as /p/notes.txt",
    ]
    put(tmp_path / "q" / "a.heic", b"x")
    with pytest.raises(InputError, match=r"no images .* in this folder; skipped: 1 images: HEIC has no reader here"):
        find_images([str(tmp_path / "q")])


def test_a_folder_that_cannot_be_read_is_not_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "p" / "a" / "1.jpg", jpeg(1))
    put(tmp_path / "p" / "b" / "1.jpg", jpeg(1))
    scandir = os.scandir

    def closed(path: str = ".") -> object:
        if os.fspath(path) == str(tmp_path / "p" / "b"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(InputError, match=r"p/b: cannot be read \(Permission denied\); name the folders that can$"):
        find_images([str(tmp_path / "p")])


def test_parquet_table_and_its_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = untrained_run(tmp_path / "run", ("cat", "dog"), *PHOTOS)
    image = put(tmp_path / "a.jpg", jpeg(1))
    assert command.main([str(run), str(image), "--out", str(tmp_path / "t.parquet")]) == 0
    assert pq.read_table(tmp_path / "t.parquet").column_names[:4] == [
        "path", "predicted_label", "predicted_class", "probability",
    ]  # fmt: skip
    for arguments, message in (
        ([str(run), str(image), "--out", str(tmp_path / "t.parquet")], "exists already"),
        ([str(run), str(image), "--out", str(tmp_path / "t.xls")], "unknown kind of file"),
        ([str(tmp_path / "nothing"), str(image)], "is not a folder; give an exported model"),
        ([str(tmp_path), str(image)], "is not an exported model: it has no config.json"),
        ([str(run), str(image), "--top", "0"], "argument --top: '0' is not a whole number above 0"),
        ([str(run)], "the following arguments are required: IMAGE"),
    ):
        assert command.main(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line


def test_an_unfinished_run_can_predict(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    (run / "summary.json").unlink()
    paths, _ = save_digits(tmp_path / "digits", 2)
    assert read_run(run).summary is None
    assert command.main([str(run), *paths]) == 0
