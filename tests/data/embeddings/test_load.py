"""The data set ``embeddings``: labels, splits and classes from every kind of label file, and its errors."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_embeddings import write_clusters

from fastcpc.config.load import load_config
from fastcpc.config.schema import DataConfig
from fastcpc.data.dataset import Dataset, EmbeddingSplit
from fastcpc.data.registry import load_dataset
from fastcpc.errors import InputError


def save(folder: Path, num_rows: int = 6) -> str:
    np.save(folder / "x.npy", np.arange(num_rows * 2).reshape(-1, 2).astype(np.float16))
    return str(folder / "x.npy")


def load(folder: Path, labels: str, **settings: object) -> Dataset:
    fields = {"embeddings": save(folder), "labels": str(folder / labels), "holdout": 0.0} | settings
    return load_dataset(DataConfig(name="embeddings", **fields))


def test_a_table_gives_paths_classes_splits_and_true_labels(tmp_path: Path) -> None:
    rows = ["index,path,label,class,split,trusted_label"]
    for row, (label, name, split) in enumerate(
        [
            (0, "cat", "train"),
            (1, "dog", "train"),
            (1, "dog", "test"),
            (0, "cat", "val"),
            (0, "cat", ""),
            (1, "dog", ""),
        ]
    ):
        rows.append(f"{row},{name}/{row}.png,{label},{name},{split},{0 if row == 5 else ''}")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    dataset = load(tmp_path, "t.csv")
    train, test = dataset.train, dataset.tests["test"]
    assert isinstance(train, EmbeddingSplit) and isinstance(test, EmbeddingSplit)
    assert dataset.class_names == ("cat", "dog") and set(dataset.tests) == {"test", "val"}
    assert train.rows.tolist() == train.source_index.tolist() == [0, 1, 4, 5] and test.rows.tolist() == [2]
    assert train.names[0] == "cat/0.png" and train.trusted is not None and train.trusted.tolist() == [-1, -1, -1, 0]
    assert dataset.in_channels == 2 and dataset.image_size == 1


def test_class_names_as_labels_are_sorted(tmp_path: Path) -> None:
    table = pa.table({"path": list("abcdef"), "label": ["pear", "apple", "pear", "fig", "fig", "apple"]})
    pq.write_table(table, tmp_path / "t.parquet")
    dataset = load(tmp_path, "t.parquet")
    assert dataset.class_names == ("apple", "fig", "pear") and dataset.train.labels.tolist() == [2, 0, 2, 1, 1, 0]


def test_without_a_test_part_some_of_each_class_are_held_out(tmp_path: Path) -> None:
    np.save(tmp_path / "y.npy", np.array([0, 1, 0, 1, 0, 1]))
    whole = load(tmp_path, "y.npy")
    assert whole.tests["test"] is whole.train and len(whole.train) == 6
    held = load(tmp_path, "y.npy", holdout=0.3)
    test = held.tests["test"]
    assert np.bincount(test.labels).tolist() == [1, 1] and len(held.train) == 4
    assert not set(test.source_index.tolist()) & set(held.train.source_index.tolist())
    again = load(tmp_path, "y.npy", holdout=0.3).tests["test"]
    assert again.source_index.tolist() == test.source_index.tolist()


BAD_LABELS = {
    "too few": ("y.npy", np.array([0, 1, 0]), "3 labels, expected 6"),
    "fractions": ("y.npy", np.array([0, 1, 0, 1, 0, 0.5]), "entry 5: label '0.5' is neither a class number"),
    "negative": ("y.npy", np.array([0, 1, 0, 1, 0, -1]), "entry 5: no label"),
    "one class": ("y.npy", np.zeros(6, int), "1 class; at least two"),
    "few rows": ("t.csv", "path,label\na,0\nb,1", "2 labels, expected 6, one per row of the embeddings"),
    "order": (
        "t.csv",
        "index,path,label\n" + "".join(f"{5 - i},{i},{i % 2}\n" for i in range(6)),
        "row 0 has index '5'",
    ),
    "two names": (
        "t.csv",
        "path,label,class\n" + "".join(f"{i},{i % 2},c{i % 3}\n" for i in range(6)),
        "a class has one name",
    ),
    "split": ("t.csv", "path,label,split\n" + "".join(f"{i},{i % 2},dev\n" for i in range(6)), "has split 'dev'"),
}


@pytest.mark.parametrize("case", BAD_LABELS)
def test_wrong_labels_are_an_error_in_one_line(tmp_path: Path, case: str) -> None:
    name, content, message = BAD_LABELS[case]
    if isinstance(content, str):
        (tmp_path / name).write_text(content)
    else:
        np.save(tmp_path / name, content)
    with pytest.raises(InputError, match=message) as caught:
        load(tmp_path, name)
    assert "\n" not in str(caught.value)


def test_test_file_of_another_model_or_classes_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "y.npy", np.array([0, 1, 0, 1, 0, 1]))
    np.save(tmp_path / "wide.npy", np.ones((6, 5), np.float32))
    with pytest.raises(InputError, match=r"5 dimensions, data\.embeddings has 2"):
        load(tmp_path, "y.npy", test_embeddings=str(tmp_path / "wide.npy"), test_labels=str(tmp_path / "y.npy"))
    np.save(tmp_path / "three.npy", np.array([0, 1, 2, 1, 0, 1]))
    with pytest.raises(InputError, match=r"outside 0\.\.1"):
        load(tmp_path, "y.npy", test_embeddings=save(tmp_path), test_labels=str(tmp_path / "three.npy"))


def test_conflicting_settings_are_named(tmp_path: Path) -> None:
    write_clusters(tmp_path)
    good = [
        "data.name=embeddings",
        "model.name=linear",
        f"data.embeddings={tmp_path / 'train.npy'}",
        f"data.labels={tmp_path / 'train_labels.npy'}",
    ]
    assert load_config([], good).data.name == "embeddings"
    for change, message in (
        ("model.name=small_cnn", "is for images; with data.name=embeddings choose linear or mlp"),
        ("data.embeddings=", "data.embeddings is empty"),
        ("data.test_labels=a.npy", "data.test_embeddings is empty: data.test_labels=a.npy needs it"),
        ("data.name=digits", "is read only with data.name=embeddings"),
    ):
        with pytest.raises(InputError, match=message):
            load_config([], [*good, change])
    with pytest.raises(InputError, match=r"is for data\.name=embeddings"):
        load_config([], ["model.name=mlp"])
