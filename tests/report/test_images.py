"""Images of a run's samples: digits, CIFAR, image files, and missing data sets."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from finished_run import finished_run
from image_sets import imagefolder
from PIL import Image
from sklearn.datasets import load_digits

from fastcpc.data.datasets.cifar_meta import CIFAR10, CifarFacts
from fastcpc.data.image_files import BadImage
from fastcpc.data.registry import cifar_spec, dataset_spec, register_dataset
from fastcpc.engine.outputs.sample_table import SampleTable
from fastcpc.report.results.images import TrainingImages
from fastcpc.report.results.run import Run, read_run
from fastcpc.report.results.samples import read_samples


@pytest.fixture
def digits(tmp_path: Path) -> tuple[Run, SampleTable]:
    run = read_run(finished_run(tmp_path / "run"))
    return run, read_samples(run)


def of(run: Run, **data: object) -> Run:
    """The run with other data settings."""
    return replace(run, config=replace(run.config, data=replace(run.config.data, **data)))  # type: ignore[arg-type]


def test_digits_are_the_images_of_their_index(digits: tuple[Run, SampleTable]) -> None:
    run, samples = digits
    images, published = TrainingImages(run, samples), load_digits().images
    for row in (0, 7, 239):
        image = images.image(row)
        assert (image.mode, image.size) == ("L", (8, 8))
        np.testing.assert_array_equal(np.asarray(image), np.rint(published[samples.index_N[row]] * 255 / 16))


def test_another_data_set_is_rejected(digits: tuple[Run, SampleTable]) -> None:
    run, samples = digits
    images = TrainingImages(run, replace(samples, paths=("train/99999", *samples.paths[1:])))
    assert images.problem.startswith("the data set has no sample 'train/99999'")
    with pytest.raises(BadImage, match="no sample 'train/99999'"):
        images.image(1)


@pytest.fixture
def small_cifar10() -> Iterator[CifarFacts]:
    """CIFAR-10 with 4 records per training file and 3 test records, for one test."""
    whole, small = dataset_spec("cifar10"), replace(CIFAR10, train_records=4, test_records=3, first_labels=())
    register_dataset(cifar_spec(small))
    yield small
    register_dataset(whole)


def test_a_data_set_with_other_labels_is_rejected(digits: tuple[Run, SampleTable]) -> None:
    run, samples = digits
    assert run.labels.trusted_N is not None
    other = replace(run, labels=replace(run.labels, trusted_N=9 - run.labels.trusted_N))
    assert TrainingImages(run, samples).problem == ""
    assert TrainingImages(other, samples).problem.startswith("the data set has other labels")


def test_cifar_images(digits: tuple[Run, SampleTable], small_cifar10: CifarFacts, tmp_path: Path) -> None:
    run, samples = digits
    rows = np.random.default_rng(0).integers(0, 256, (23, 3073), dtype=np.uint8)
    rows[:, 0] %= 10
    for number, name in enumerate((*small_cifar10.layouts[0].train_files, "test_batch.bin")):
        (tmp_path / name).write_bytes(rows[4 * number :][: 3 if number == 5 else 4].tobytes())
    chosen = replace(samples, paths=("train/00003", "train/00019"))
    image = TrainingImages(of(run, name="cifar10", root=str(tmp_path)), chosen).image(1)
    assert (image.mode, image.size) == ("RGB", (32, 32))
    np.testing.assert_array_equal(np.asarray(image), rows[19, 1:].reshape(3, 32, 32).transpose(1, 2, 0))
    assert "no such folder" in TrainingImages(of(run, name="cifar10", root=str(tmp_path / "gone")), chosen).problem


def test_image_files_in_another_folder(digits: tuple[Run, SampleTable], tmp_path: Path) -> None:
    run, samples = digits
    root = imagefolder(tmp_path / "here", {"a": 1, "b": 2})
    names = ("b/001.jpg", "a/000.jpg", "a/none.jpg")
    photos = of(run, name="imagefolder", root=str(tmp_path / "before"))
    assert "no such folder" in TrainingImages(photos, replace(samples, paths=names)).problem
    images = TrainingImages(photos, replace(samples, paths=names), root=str(root))
    assert images.problem == ""
    with Image.open(root / names[0]) as file:
        np.testing.assert_array_equal(np.asarray(images.image(0)), np.asarray(file))
    with pytest.raises(BadImage, match="no such file"):
        images.image(2)
