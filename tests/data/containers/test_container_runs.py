"""Folders, lists, shards and Parquet files with the same images train alike, and outputs name their images."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from containers import (
    folder_samples,
    form_config,
    form_settings,
    image_forms,
    image_table,
    write_parquet,
    write_shards,
)
from made_images import damaged_files, odd_files
from small_run import run

from fastcpc.cli.clean import main as clean
from fastcpc.cli.prepare import main as prepare
from fastcpc.config.schema import Config, DataConfig
from fastcpc.data.containers.by_name import NamedImages
from fastcpc.data.identity import compare, identify
from fastcpc.data.image_files import BadImage, read_bytes
from fastcpc.data.image_store import ImageFiles
from fastcpc.data.loaders.dali_pipeline import dali_problem
from fastcpc.data.prepare.check_images import check_images
from fastcpc.data.registry import list_images, load_dataset
from fastcpc.report.results.images import TrainingImages
from fastcpc.report.results.run import read_run
from fastcpc.report.results.samples import read_samples

TIMES = ("seconds", "images_per_second", "data_wait")
KINDS = ("shards", "parquet", "list")
LOADER = "torch" if dali_problem() else "dali"
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images as folder, list, shards and Parquet files."""
    root = tmp_path_factory.mktemp("made")
    image_forms(root)
    return root


def config(made: Path, kind: str, folder: Path, **data: Any) -> Config:
    return form_config(made, kind, folder, LOADER, **data)


@pytest.fixture(scope="module")
def runs(made: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    for kind in ("folder", *KINDS):
        run(config(made, kind, folder / kind))
    return {kind: folder / kind for kind in ("folder", *KINDS)}


@pytest.mark.parametrize("kind", KINDS)
def test_all_forms_train_bit_identical(runs: dict[str, Path], kind: str) -> None:
    """Metrics and clean probabilities are equal; only paths differ."""
    texts = [(path / "metrics.jsonl").read_text().splitlines() for path in (runs[kind], runs["folder"])]
    lines = [[{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in text] for text in texts]
    assert len(lines[0]) == 2 and lines[0] == lines[1]
    tables = [pq.read_table(path / "clean_probabilities.parquet") for path in (runs[kind], runs["folder"])]
    assert tables[0].drop(["path"]).equals(tables[1].drop(["path"]))
    first = {"shards": "train-00000.tar/000000.jpg", "parquet": "train-00000-of-00003.parquet#0"}
    assert tables[0]["path"][0].as_py() == first.get(kind, "train/blue/0.jpg")


@pytest.mark.parametrize("kind", ["shards", "parquet"])
def test_report_and_cleaned_list_name_the_images(
    made: Path, runs: dict[str, Path], tmp_path: Path, kind: str, capsys: Capture
) -> None:
    """The gallery shows the images, and a cleaned list selects samples of the same files."""
    found, whole = read_run(runs[kind]), read_run(runs["folder"])
    samples = read_samples(found)
    images, expected = TrainingImages(found, samples), TrainingImages(whole, read_samples(whole))
    assert not images.problem
    for row in (0, 17, len(samples.paths) - 1):
        assert np.array_equal(images.image(row), expected.image(row))
    assert clean([str(runs[kind]), "--out", str(tmp_path / "s.csv"), "--cleaned-list", str(tmp_path / "c.csv")]) == 0
    name = form_settings(made, kind)["name"]
    assert f"train with data.name={name} data.list={tmp_path}/c.csv data.classes=" in capsys.readouterr().out
    lists = {"list": str(tmp_path / "c.csv"), "classes": str(tmp_path / "c.classes.txt")}
    data = replace(config(made, kind, tmp_path).data, **lists)
    kept = load_dataset(data)
    assert 0 < len(kept.train) <= 42 and len(kept.tests["test"]) == 9
    before = dict(zip(samples.paths, samples.given_N.tolist(), strict=True))
    assert all(before[path] == label for path, label in zip(kept.train.names, kept.train.labels.tolist(), strict=True))
    tasks = ["--out", str(tmp_path / "t.csv"), "--label-studio", str(tmp_path / "tasks.json")]
    assert clean([str(runs[kind]), *tasks]) == 0
    assert '"data:image/' in (tmp_path / "tasks.json").read_text()
    assert clean([str(runs[kind]), "--out", str(tmp_path / "u.csv"), "--cleaned-list", str(tmp_path / "links")]) == 2
    assert "are inside container files; use .csv or .parquet" in capsys.readouterr().err


def test_a_changed_shard_is_noticed(made: Path, tmp_path: Path) -> None:
    """A run that resumes compares these identities."""
    samples = folder_samples(made / "f" / "train")
    data = replace(config(made, "shards", tmp_path).data, root=str(tmp_path))
    found = []
    for first in ("blue", "red"):
        write_shards(tmp_path, "train", [(first, samples[0][1], samples[0][2]), *samples[1:]], 20)
        dataset = load_dataset(data)
        found.append(identify(dataset, dataset.train.labels, data.root))
    difference = compare(*found, {"train"})
    assert difference is not None
    assert "1 relabelled (first train-00000.tar/000000.jpg: blue -> red)" in difference.text


@pytest.mark.parametrize("kind", ["shards", "parquet"])
def test_prepare_writes_an_index_and_a_cache(made: Path, tmp_path: Path, kind: str, capsys: Capture) -> None:
    """Broken images are named; training leaves them out and reads the others from the cache."""
    samples = [*folder_samples(made / "f" / "train"), ("red", "broken.jpg", b"<html>")]
    root = tmp_path / "set"
    for part, some in (("train", samples), ("test", samples[:9:3] + samples[-4:-1])):
        if kind == "shards":
            write_shards(root, part, some, 50)
        else:
            write_parquet(root / f"{part}.parquet", image_table(some))
    name = form_settings(made, kind)["name"]
    command = [name, "--root", str(root), "--jobs", "2", "--cache", "36", "--max-bad", "0.1"]
    assert prepare(command) == 0
    out = capsys.readouterr().out
    bad = {"shards": "train-00000.tar/000042.jpg", "parquet": "train.parquet#42"}[kind]
    assert f"broken: {bad}: not an image of a known format" in out and f"{name}: 2 " in out
    data = replace(config(made, kind, tmp_path).data, root=str(root), max_bad=0.1)
    assert load_dataset(data).broken == (42,)
    assert (root / ".fastcpc-index" / f"{name}.cache-36.bin").exists()


def test_odd_and_damaged_files_give_what_the_files_give(tmp_path: Path) -> None:
    """One code path: turned, CMYK, 16-bit, animated, truncated, empty; in processes that get the stores as pickles."""
    (tmp_path / "f").mkdir()
    paths = [*odd_files(tmp_path / "f"), *damaged_files(tmp_path / "f")[:-1]]
    samples = [("ab"[number % 2], path.name, path.read_bytes()) for number, path in enumerate(paths)]
    write_shards(tmp_path / "s", "train", samples, 9)
    write_parquet(tmp_path / "p" / "train.parquet", image_table(samples), row_group_size=5)
    stores = [
        list_images(DataConfig(name=name, root=str(tmp_path / folder), holdout=0.0)).splits["train"].images
        for name, folder in (("webdataset", "s"), ("parquet", "p"))
    ]
    expected = [
        (check.problem, check.format, check.width)
        for check, _ in check_images(ImageFiles([str(path) for path in paths]), 1)
    ]
    assert len(expected) > 32 and sum(bool(problem) for problem, _, _ in expected) == 4
    for store in stores:
        assert [(check.problem, check.format, check.width) for check, _ in check_images(store, 2)] == expected


def test_images_by_the_names_of_outputs(made: Path) -> None:
    names = ["s/train-00001.tar/000003.jpg", "p/data/train-00001-of-00003.parquet#4", "f/train/blue/3.jpg"]
    missing = [
        "s/train-00001.tar/x.jpg",
        "s/x.tar/0.jpg",
        "p/data/x.parquet#1",
        "l.csv/x",
        "p/data/train-00001-of-00003.parquet#99",
    ]
    images = NamedImages(str(made), [*names, *missing])
    contents = [content for _, _, content in folder_samples(made / "f" / "train")]
    assert [images.read(0), images.read(1)] == [contents[13], contents[24]]
    assert images.read(2) == read_bytes(str(made / "f/train/blue/3.jpg"))
    for row in range(3, 8):
        with pytest.raises(BadImage):
            images.read(row)
