"""Cleaned lists of image data sets: each is read back by the data set's own reader."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_sets import clothing1m, imagefolder, jpeg, lines, put, webvision

from fastcpc.config.load import load_config
from fastcpc.config.names import DATASETS, DatasetTraits
from fastcpc.config.schema import Config, NoiseConfig
from fastcpc.data.registry import dataset_spec, list_images, register_dataset, unregister_dataset
from fastcpc.engine.launch import load_data
from fastcpc.engine.outputs.data_record import identity_of, write_record
from fastcpc.engine.outputs.labels_file import RunLabels
from fastcpc.engine.outputs.sample_table import SampleTable
from fastcpc.errors import InputError
from fastcpc.report.results.cleaned_list import write_cleaned
from fastcpc.report.results.run import Run

ODD = ['a,1 "x".jpg', "new\nline.jpg", "<b>.jpg", "=1.jpg"]


def run_of(config: Config, swap: dict[int, int] | None = None) -> tuple[Run, SampleTable]:
    """A run on an image set, all labels as given (or swapped), as far as a cleaned list needs one."""
    listing = list_images(config.data)
    split = listing.splits["train"]
    given_N = split.labels.copy()
    for row, label in (swap or {}).items():
        given_N[row] = label
    labels = RunLabels(
        given_N, None, split.source_index, listing.class_names, listing.class_ids, config.noise.kind, 0.0, None, 1
    )
    ones = np.ones(len(split))
    samples = SampleTable(
        index_N=split.source_index, paths=split.names, given_N=given_N, predicted_N=given_N, q_N2={},
        clean_prob_N=ones, p_given_N=ones, p_predicted_N=ones, is_clean_N=ones > 0,
    )  # fmt: skip
    return Run(Path("run"), config, labels, (), None), samples


def issues(samples: SampleTable, *rows: int) -> Any:
    return np.isin(np.arange(len(samples)), rows)


def test_a_clothing1m_key_list(tmp_path: Path) -> None:
    for images in (True, False):
        root = clothing1m(tmp_path / f"{images}", images=images)
        config = load_config([], ["data.name=clothing1m", f"data.root={root}"])
        run, samples = run_of(config, swap={0: 1, 3: 4})  # so that no class loses all of its images
        target = tmp_path / f"keys_{images}.txt"
        assert "4 keys" in write_cleaned(run, samples, issues(samples, 0, 3), target)
        (root / "noisy_train_key_list.txt").write_bytes(target.read_bytes())
        again = list_images(config.data).splits["train"]
        assert again.names == tuple(samples.paths[row] for row in (1, 2, 4, 5))
        assert again.labels.tolist() == samples.given_N[[1, 2, 4, 5]].tolist()


def test_a_webvision_filelist(tmp_path: Path) -> None:
    root = webvision(tmp_path / "w")
    config = load_config([], ["data.name=webvision", f"data.root={root}", "data.num_classes=2"])
    run, samples = run_of(config)
    target = tmp_path / "list.txt"
    write_cleaned(run, samples, issues(samples, 1), target)
    assert target.read_text().splitlines()[-1] == "google/q9999/z.jpg 999"
    (root / "info" / "train_filelist_google.txt").write_bytes(target.read_bytes())
    again = list_images(config.data).splits["train"]
    assert again.names == tuple(np.delete(samples.paths, 1))
    assert again.labels.tolist() == np.delete(samples.given_N, 1).tolist()
    run, samples = run_of(replace(config, data=replace(config.data, flickr=True)))
    with pytest.raises(InputError, match=r"data\.flickr has two filelists"):
        write_cleaned(run, samples, issues(samples), target)


@pytest.fixture
def photos(tmp_path: Path) -> Config:
    """Two classes in folders whose names are numbers, odd file names, ten images more, no test part of its own."""
    root = imagefolder(tmp_path / "photos", {"10": 5, "2/deeper": 5})
    for number, name in enumerate(ODD):
        put(root / "10" / name, jpeg(number))
    return load_config([], ["data.name=imagefolder", f"data.root={root}", "data.holdout=0.2"])


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_list_for_an_image_folder(photos: Config, tmp_path: Path, ending: str) -> None:
    run, samples = run_of(photos, swap={0: 1})
    before = list_images(photos.data)
    target = tmp_path / f"kept{ending}"
    usage = write_cleaned(run, samples, issues(samples, 2, 5), target)
    assert usage.endswith(f"data.name=imagefolder data.list={target} data.classes={tmp_path / 'kept.classes.txt'}")
    data = replace(photos.data, list=str(target), classes=str(tmp_path / "kept.classes.txt"))
    after = list_images(data)
    assert after.class_names == before.class_names == ("10", "2")
    assert after.splits["train"].names == tuple(np.delete(samples.paths, [2, 5]))
    assert after.splits["train"].labels.tolist() == np.delete(samples.given_N, [2, 5]).tolist()
    assert after.splits["test"].names == before.splits["test"].names
    assert after.splits["test"].labels.tolist() == before.splits["test"].labels.tolist()


def test_a_folder_of_links(photos: Config, tmp_path: Path) -> None:
    run, samples = run_of(photos, swap={0: 1})
    before = list_images(photos.data)
    target = tmp_path / "kept"
    usage = write_cleaned(run, samples, issues(samples, 2, 5), target)
    assert usage == f"links to {len(samples) - 2} training images: train with data.name=imagefolder data.root={target}"
    after = list_images(replace(photos.data, root=str(target)))

    def content(listing: Any, split: str) -> list[tuple[str, int]]:
        part = listing.splits[split]
        return sorted((Path(path).resolve().name, k) for path, k in zip(part.paths, part.labels.tolist(), strict=True))

    kept = [row for row in range(len(samples)) if row not in (2, 5)]
    assert content(after, "train") == sorted((Path(samples.paths[r]).name, int(samples.given_N[r])) for r in kept)
    assert content(after, "test") == content(before, "test")
    assert all(Path(path).is_symlink() for path in after.splits["train"].paths)


def test_a_failed_folder_of_links_leaves_nothing(
    photos: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, samples = run_of(photos)
    monkeypatch.setattr(Path, "symlink_to", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(RuntimeError, match="no space left"):
        write_cleaned(run, samples, issues(samples), tmp_path / "kept")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos"]


def test_train_val_test_folders_stay_apart(tmp_path: Path) -> None:
    root = imagefolder(tmp_path / "p", {"train/a": 3, "train/b": 3, "validation/a": 1, "validation/b": 1, "test/b": 2})
    config = load_config([], ["data.name=imagefolder", f"data.root={root}"])
    run, samples = run_of(config, swap={0: 1})
    write_cleaned(run, samples, issues(samples, 4), tmp_path / "kept")
    found = sorted(str(path.relative_to(tmp_path / "kept")) for path in (tmp_path / "kept").rglob("*.jpg"))
    assert found == [
        "test/b/000.jpg", "test/b/001.jpg", "train/a/001.jpg", "train/a/002.jpg", "train/b/000.jpg", "train/b/002.jpg",
        "train/b/train/a/000.jpg", "val/a/000.jpg", "val/b/000.jpg",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "target", "message"),
    [
        ([], "kept.txt", r"use \.csv or \.parquet, or a name without ending for a folder of links"),
        (["data.list={root}/list.csv"], "kept", r"this run was trained on a list; use \.csv or \.parquet"),
    ],
)
def test_errors_of_cleaned_lists(
    photos: Config, tmp_path: Path, settings: list[str], target: str, message: str
) -> None:
    root = Path(photos.data.root)
    lines(root / "list.csv", ["path,label", "10/000.jpg,a", "10/001.jpg,a", "10/002.jpg,b", "10/003.jpg,b"])
    data = [text.format(root=root) for text in settings]
    config = load_config([], ["data.name=imagefolder", f"data.root={root}", *data])
    run, samples = run_of(config)
    with pytest.raises(InputError, match=message):
        write_cleaned(run, samples, issues(samples), tmp_path / target)


def test_other_labels_are_rejected(tmp_path: Path) -> None:
    root = webvision(tmp_path / "w")
    noise = ["noise.kind=asym_next", "noise.rate=0.5", "data.num_classes=2"]
    config = load_config([], ["data.name=webvision", f"data.root={root}", *noise])
    run, samples = run_of(config)
    with pytest.raises(
        InputError, match=r"the labels of this run come from noise\.kind=asym_next, not from webvision's"
    ):
        write_cleaned(run, samples, issues(samples), tmp_path / "x.txt")


def test_names_with_outer_spaces_need_parquet(photos: Config, tmp_path: Path) -> None:
    put(Path(photos.data.root) / "10" / " blank.jpg", jpeg(3))
    run, samples = run_of(photos)
    run_list = replace(samples, paths=(" blank.jpg", *samples.paths[1:]))
    with pytest.raises(InputError, match=r"' blank.jpg' begins or ends with a space; use \.parquet"):
        write_cleaned(run, run_list, issues(samples), tmp_path / "kept.csv")


def subset_run(photos: Config, folder: Path) -> tuple[Run, SampleTable]:
    """A run on 6 of the training images, with its record."""
    config = replace(photos, data=replace(photos.data, subset=6))
    dataset, labels = load_data(config)
    folder.mkdir()
    write_record(folder, identity_of(config, dataset, labels))
    run, samples = run_of(photos)
    rows = [list(samples.paths).index(name) for name in dataset.train.names]
    part = replace(
        samples, index_N=samples.index_N[rows], paths=dataset.train.names, given_N=labels.given,
        predicted_N=labels.given, clean_prob_N=np.ones(6), p_given_N=np.ones(6), p_predicted_N=np.ones(6),
        is_clean_N=np.ones(6, bool),
    )  # fmt: skip
    return replace(run, config=config, path=folder), part


@pytest.mark.parametrize("target", ["kept.csv", "kept"])
def test_images_outside_the_subset_are_kept_unchecked(photos: Config, tmp_path: Path, target: str) -> None:
    whole = list_images(photos.data).splits["train"]
    run, samples = subset_run(photos, tmp_path / "run")
    usage = write_cleaned(run, samples, issues(samples, 0), tmp_path / target)
    num_left = len(whole) - 6
    assert usage.endswith(f"; {num_left} images outside data.subset are kept unchecked, with their given labels")
    assert f"{len(whole) - 1} training images" in usage
    if target == "kept.csv":
        data = replace(photos.data, list=str(tmp_path / target), classes=str(tmp_path / "kept.classes.txt"))
        again = list_images(data).splits["train"]
        found = dict(zip(again.names, again.labels.tolist(), strict=True))
        expected = dict(zip(whole.names, whole.labels.tolist(), strict=True))
        del expected[samples.paths[0]]
        assert found == expected


def test_a_key_list_keeps_unchecked_images_from_the_record(tmp_path: Path) -> None:
    root = clothing1m(tmp_path / "c")
    config = load_config([], ["data.name=clothing1m", f"data.root={root}", "data.subset=4"])
    run, samples = run_of(config)
    samples = replace(samples, given_N=np.zeros_like(samples.given_N))
    write_record(tmp_path, identity_of(config, *load_data(config)))
    used = [row for row, name in enumerate(samples.paths) if name in load_data(config)[0].train.names]
    part = replace(samples, **{key: getattr(samples, key)[used] for key in ROW_FIELDS})
    part = replace(part, paths=tuple(samples.paths[row] for row in used))
    (root / "noisy_train_key_list.txt").unlink()  # the command does not need it
    usage = write_cleaned(replace(run, path=tmp_path), part, issues(part, 0), tmp_path / "keys.txt")
    assert "5 keys" in usage and "2 images outside data.subset are kept unchecked" in usage


ROW_FIELDS = ("index_N", "given_N", "predicted_N", "clean_prob_N", "p_given_N", "p_predicted_N", "is_clean_N")


@pytest.mark.parametrize("target", ["kept.csv", "kept"])
def test_a_class_whose_labels_are_all_suspected_keeps_the_best(tmp_path: Path, target: str) -> None:
    root = imagefolder(tmp_path / "p", {"train/a": 12, "train/b": 10, "train/rare": 3, "test/a": 1})
    config = load_config([], ["data.name=imagefolder", f"data.root={root}"])
    run, samples = run_of(config)
    samples = replace(samples, p_given_N=np.linspace(0, 1, 25))
    usage = write_cleaned(run, samples, issues(samples, *range(1), *range(12, 25)), tmp_path / target)
    assert (
        "class b: all 10 labels are suspected, the 8 with the highest scores are kept; check this class by eye" in usage
    )
    assert "class rare: all 3 labels are suspected, the 3 with the highest scores are kept" in usage
    data = replace(config.data, root=str(tmp_path / target))
    if target == "kept.csv":
        data = replace(config.data, list=str(tmp_path / target), classes=str(tmp_path / "kept.classes.txt"))
    after = list_images(data).splits["train"]  # training accepts it
    assert np.bincount(after.labels).tolist() == [11, 8, 3]
    assert {Path(name).name for name in np.array(after.names)[after.labels == 1]} == {
        f"{k:03d}.jpg" for k in range(2, 10)
    }


def test_a_changed_data_set_has_no_cleaned_list(photos: Config, tmp_path: Path) -> None:
    run, samples = run_of(photos)
    write_record(tmp_path, identity_of(photos, *load_data(photos)))
    run = replace(run, path=tmp_path)
    first = Path(photos.data.root) / samples.paths[0]
    first.unlink()
    with pytest.raises(InputError, match=r"1 removed \(first 10/.*\)\); restore the data set of the run"):
        write_cleaned(run, samples, issues(samples, 1), tmp_path / "kept.csv")


def test_a_changed_filelist_has_no_cleaned_list(tmp_path: Path) -> None:
    root = webvision(tmp_path / "w")
    config = load_config([], ["data.name=webvision", f"data.root={root}", "data.num_classes=2"])
    run, samples = run_of(config)
    write_record(tmp_path, identity_of(config, *load_data(config)))
    run, file = replace(run, path=tmp_path), root / "info" / "train_filelist_google.txt"
    write_cleaned(run, samples, issues(samples, 1), tmp_path / "list.txt")
    file.write_text(file.read_text().replace("photo 2,x.jpg 0", "photo 2,x.jpg 1"))
    with pytest.raises(InputError, match=r"not the data set of .*1 relabelled \(first google/q0001/photo 2,x.jpg: "):
        write_cleaned(run, samples, issues(samples, 1), tmp_path / "list.txt")


def test_registered_data_set_writes_its_own_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def list_without(_: object, kept: Sequence[str], dropped: Sequence[str]) -> tuple[bytes, str]:
        return "\n".join(kept).encode(), f"{len(dropped)} left out"

    monkeypatch.setitem(DATASETS, "own", DatasetTraits("images"))
    register_dataset(replace(dataset_spec("imagefolder"), name="own", list_without=list_without))
    try:
        root = imagefolder(tmp_path / "images", {"a": 3, "b": 2})
        run, samples = run_of(load_config([], ["data.name=own", f"data.root={root}"]))
        assert write_cleaned(run, samples, issues(samples, 1), tmp_path / "own.txt") == "1 left out"
        kept = (*samples.paths[:1], *samples.paths[2:])
        assert (tmp_path / "own.txt").read_text() == "\n".join(kept)
        noisy = replace(run.config, noise=NoiseConfig(kind="sym", rate=0.2))
        with pytest.raises(InputError, match=r"noise\.kind=sym, not from own's own lists; use the table of --out"):
            write_cleaned(replace(run, config=noisy), samples, issues(samples, 1), tmp_path / "own.txt")
    finally:
        unregister_dataset("own")
