"""Cells, columns and labels of Parquet files with images."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import image_sets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from containers import image_table, write_parquet

from fastcpc.config.schema import DataConfig
from fastcpc.data.containers import parquet_cells
from fastcpc.data.containers.handles import container_file
from fastcpc.data.containers.parquet_schema import find_cells, open_parquet
from fastcpc.data.datasets.listing import Listing
from fastcpc.data.image_files import BadImage
from fastcpc.data.registry import list_images
from fastcpc.errors import InputError

JPEGS = [image_sets.jpeg(i) for i in range(4)]
SIX = [(name, f"{number}.jpg", JPEGS[number % 4]) for number, name in enumerate(["dog", "cat", "ü", "cat", "dog", "ü"])]


def listing(root: Path, **settings: Any) -> Listing:
    return list_images(DataConfig(name="parquet", root=str(root), **{"holdout": 0.0, **settings}))


def problem(root: Path, **settings: Any) -> str:
    with pytest.raises(InputError) as error:
        listing(root, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def check_cells(path: Path, values: Sequence[bytes | None]) -> None:
    with open_parquet(str(path)) as file:
        column = find_cells(str(path), file, container_file(str(path)), "")
    for row in np.random.default_rng(0).permutation(len(values)).tolist():
        assert column.cell(row) == values[row]


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "lz4"])
@pytest.mark.parametrize("is_struct", [True, False])
def test_cells_equal_those_of_pyarrow(tmp_path: Path, compression: str, is_struct: bool) -> None:
    """With and without dictionaries, in both versions of pages, in small and large row groups, with null values."""
    draws, number = np.random.default_rng(1), 0
    for most, num in ((4, 900), (3000, 40), (40_000, 30)):
        for dictionary, version, group in (
            (True, "1.0", 7),
            (True, "2.0", 10_000),
            (False, "1.0", 10_000),
            (False, "2.0", 7),
        ):
            values = [None if draws.random() < 0.2 else draws.bytes(int(draws.integers(0, most))) for _ in range(num)]
            column = pa.array(values, pa.binary())
            if is_struct:
                absent = pa.array(draws.random(num) < 0.1)
                column = pa.StructArray.from_arrays([column], ["bytes"], mask=absent)
                values = [None if cell is None else cell["bytes"] for cell in column.to_pylist()]
            number += 1
            table = pa.table({"image": column, "label": pa.array(np.arange(num) % 3)})
            path = write_parquet(
                tmp_path / f"{number}.parquet",
                table,
                compression=compression,
                use_dictionary=dictionary,
                data_page_version=version,
                row_group_size=group,
                data_page_size=20_000,
            )
            check_cells(path, values)


@pytest.mark.parametrize("kind", [pa.large_binary(), pa.binary_view()])
def test_other_columns_of_bytes(tmp_path: Path, kind: pa.DataType) -> None:
    values = [None if row % 5 == 0 else bytes([row]) * row for row in range(100)]
    table = pa.table({"image": pa.array(values, kind), "label": pa.array(np.arange(100) % 3)})
    check_cells(write_parquet(tmp_path / "a.parquet", table), values)


@pytest.mark.parametrize("encoding", ["DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"])
def test_rare_encodings_are_read_by_pyarrow(tmp_path: Path, encoding: str) -> None:
    values = [None if row % 5 == 0 else bytes([row]) * row for row in range(100)]
    table = pa.table({"image": pa.array(values, pa.large_binary())})
    options: dict[str, Any] = {"use_dictionary": False, "column_encoding": {"image": encoding}, "row_group_size": 30}
    check_cells(write_parquet(tmp_path / "a.parquet", table, **options), values)


def test_little_is_read_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uncompressed cells are read alone; decompressed pages stay within their budget."""
    values = [np.random.default_rng(row).bytes(50_000) for row in range(60)]
    table = pa.table({"image": pa.array(values, pa.binary())})
    read: list[int] = []
    plain = parquet_cells.read_range

    def counted(file: Any, offset: int, size: int) -> bytes:
        read.append(size)
        return plain(file, offset, size)

    monkeypatch.setattr(parquet_cells, "read_range", counted)
    check_cells(write_parquet(tmp_path / "a.parquet", table, compression="none", use_dictionary=False), values)
    assert sum(read) < 1.01 * sum(map(len, values))
    monkeypatch.setattr(parquet_cells, "CACHE_BYTES", 1_200_000)
    check_cells(write_parquet(tmp_path / "b.parquet", table, use_dictionary=False, row_group_size=10), values)
    assert parquet_cells._total <= 1_200_000


def test_hugging_face_files(tmp_path: Path) -> None:
    """Class names in the order of the ClassLabel, parts by file name, rows as names."""
    classes = ["dog", "ü", "cat"]
    write_parquet(tmp_path / "data" / "train-00000-of-00002.parquet", image_table(SIX[:4], classes), row_group_size=3)
    write_parquet(tmp_path / "data" / "train-00001-of-00002.parquet", image_table(SIX[4:], classes))
    write_parquet(tmp_path / "data" / "validation-00000-of-00001.parquet", image_table(SIX[:2], classes))
    image_sets.put(tmp_path / "README.md", b"x")
    found = listing(tmp_path)
    train = found.splits["train"]
    assert found.class_names == tuple(classes) and train.labels.tolist() == [0, 2, 1, 2, 0, 1]
    assert [train.images.read(row) for row in range(6)] == [content for _, _, content in SIX]
    assert train.names[3:5] == ("data/train-00000-of-00002.parquet#3", "data/train-00001-of-00002.parquet#0")
    assert found.splits["test"] is found.splits["val"] and len(found.splits["val"]) == 2


def with_columns(**columns: Any) -> pa.Table:
    return pa.table(
        {name: values if isinstance(values, pa.Array) else pa.array(values) for name, values in columns.items()}
    )


def plain(*contents: bytes | None) -> pa.Array:
    return pa.array(contents, pa.binary())


def test_a_plain_column_of_bytes_and_other_labels(tmp_path: Path) -> None:
    table = with_columns(photo=plain(*JPEGS), kind=["b", "a", "a", "b"], clean_label=["b", None, "b", "a"])
    write_parquet(tmp_path / "a.parquet", table)
    split = listing(tmp_path, label_key="kind").splits["train"]
    assert (
        split.labels.tolist() == [1, 0, 0, 1] and split.trusted is not None and split.trusted.tolist() == [1, -1, 1, 0]
    )


def test_null_and_damaged_images_are_read_like_files(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", with_columns(image=plain(JPEGS[0], None, b"", JPEGS[1]), label=[0, 1, 0, 1]))
    images = listing(tmp_path).splits["train"].images
    for row, reason in ((1, "the cell has no image"), (2, "the file is empty")):
        with pytest.raises(BadImage, match=reason):
            images.read(row)
    raw = bytearray((tmp_path / "a.parquet").read_bytes())
    raw[4:60] = b"\xff" * 56
    (tmp_path / "a.parquet").write_bytes(raw)
    with pytest.raises(BadImage, match="the Parquet file is damaged here"):
        listing(tmp_path).splits["train"].images.read(0)


def test_a_list_replaces_the_labels(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", with_columns(image=plain(*JPEGS)))
    rows = ["path,label", "a.parquet#3,cat", "a.parquet#0,dog"]
    split = listing(tmp_path, list=str(image_sets.lines(tmp_path / "l.csv", rows))).splits["train"]
    assert split.images.read(0) == JPEGS[3] and split.labels.tolist() == [0, 1]


def test_a_remark_on_large_compressed_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastcpc.data.containers.parquet.LARGE_PAGE", 1000)
    write_parquet(tmp_path / "a.parquet", with_columns(image=plain(*JPEGS), label=[0, 1, 0, 1]))
    assert any("fastcpc-prepare parquet --cache" in remark for remark in listing(tmp_path).remarks)
    write_parquet(tmp_path / "a.parquet", with_columns(image=plain(*JPEGS), label=[0, 1, 0, 1]), compression="none")
    assert not any("--cache" in remark for remark in listing(tmp_path).remarks)


def hugging_face(names: Sequence[str], *labels: int | None) -> pa.Table:
    about = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    table = with_columns(image=plain(*(JPEGS[0] for _ in labels)), label=pa.array(labels, pa.int64()))
    return table.replace_schema_metadata({"huggingface": json.dumps(about)})


def two_class_labels() -> pa.Table:
    feature = {"names": ["a", "b"], "_type": "ClassLabel"}
    about = {"info": {"features": {"fine_label": feature, "coarse_label": feature}}}
    table = with_columns(image=plain(*JPEGS), fine_label=[0, 1, 0, 1], coarse_label=[0, 0, 1, 1])
    return table.replace_schema_metadata({"huggingface": json.dumps(about)})


BAD: dict[str, tuple[Callable[[], pa.Table | bytes], dict[str, str], str]] = {
    "no images": (
        lambda: with_columns(text=["x", "y"], label=[0, 1]),
        {},
        "a.parquet: no column of images (text string, label int64)",
    ),
    "a list of paths": (lambda: with_columns(path=["a.jpg"], label=[0]), {}, "data.name=imagefolder data.list"),
    "two columns of images": (
        lambda: with_columns(image=plain(*JPEGS), mask=plain(*JPEGS), label=[0, 1, 0, 1]),
        {},
        "a.parquet: 'image' and 'mask' are both columns of images; name one in data.image_key",
    ),
    "no such image key": (
        lambda: with_columns(image=plain(*JPEGS), label=[0, 1, 0, 1]),
        {"image_key": "img"},
        "no column 'img' of images",
    ),
    "no labels": (lambda: with_columns(image=plain(*JPEGS)), {}, "a.parquet: no column of labels (no other column)"),
    "two columns of labels": (
        lambda: with_columns(image=plain(*JPEGS), **{"class": [0, 1, 0, 1], "category": [1, 0, 1, 0]}),
        {},
        "'class' and 'category' can both be the column label; name one in data.label_key",
    ),
    "two class labels": (
        two_class_labels,
        {},
        "'fine_label' and 'coarse_label' are both columns of labels; name one in data.label_key",
    ),
    "no such label key": (
        lambda: with_columns(image=plain(*JPEGS), label=[0, 1, 0, 1]),
        {"label_key": "kind"},
        "a.parquet: data.label_key=kind: no such column of labels; it has label",
    ),
    "null label": (
        lambda: with_columns(image=plain(*JPEGS), label=[0, None, 1, 0]),
        {},
        "a.parquet#1: no label (1 image in all)",
    ),
    "unlabelled test set": (
        lambda: hugging_face(["a", "b"], 0, 1, -1, -1),
        {},
        "a.parquet#2: no label (2 images in all)",
    ),
    "label above the names": (
        lambda: hugging_face(["a", "b"], 0, 1, 2),
        {},
        "a.parquet#2: label '2' is no class of ClassLabel 'label' (0..1)",
    ),
    "class without images": (
        lambda: hugging_face(["a", "b", "c"], 0, 1),
        {},
        "no training image of class 2 (c); add images",
    ),
    "not Parquet": (lambda: b"<html>", {}, "a.parquet: not a Parquet file that can be read"),
    "cut off": (lambda: b"PAR1" + bytes(100), {}, "a.parquet: not a Parquet file that can be read"),
    "no rows": (lambda: with_columns(image=plain(), label=pa.array([], pa.int64())), {}, "a.parquet: no rows"),
}


@pytest.mark.parametrize("case", BAD)
def test_each_problem_is_one_line(tmp_path: Path, case: str) -> None:
    make, settings, expected = BAD[case]
    made = make()
    if isinstance(made, bytes):
        (tmp_path / "a.parquet").write_bytes(made)
    else:
        pq.write_table(made, tmp_path / "a.parquet")
    assert expected in problem(tmp_path, **settings)


def test_files_with_other_class_names_are_refused(tmp_path: Path) -> None:
    pq.write_table(hugging_face(["a", "b"], 0, 1), tmp_path / "a.parquet")
    pq.write_table(hugging_face(["b", "a"], 0, 1), tmp_path / "b.parquet")
    assert "b.parquet: its ClassLabel has other names than" in problem(tmp_path)
    both = listing(tmp_path / "a.parquet", image_key="image", label_key="label")
    assert both.class_names == ("a", "b")
