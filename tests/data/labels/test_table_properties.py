"""Properties of label tables: every way of writing a table gives the same labels, and garbage gives one clear line."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastcpc.data.augment.policies import WeakPolicy
from fastcpc.data.dataset import Dataset
from fastcpc.data.datasets.image_list import list_by_file
from fastcpc.data.datasets.listing import make_split
from fastcpc.data.labels.label_file import read_label_file
from fastcpc.data.labels.table_reader import TABLE_ENDINGS
from fastcpc.errors import InputError

NAMES = tuple(f"class {k}/image, {k} \u00e9 {i};.jpg" for k in range(3) for i in range(2))
LABELS = (0, 0, 1, 1, 2, 2)
FAST = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
CELLS = st.one_of(
    st.text(max_size=6),
    st.sampled_from(
        ["", "0", "1", "01", "1.0", "-1", "NaN", "cat", "Cat", " cat", "\u00e9", "e\u0301", "a.jpg", "a\\b.jpg", '"']
    ),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


def dataset() -> Dataset:
    train = make_split("/data", NAMES, LABELS)
    return Dataset("mine", ("a", "b", "c"), train, {"test": train}, (0.5,), (0.5,), WeakPolicy(False, 0))


def refusal(read: Callable[[], object]) -> str:
    """The message with which reading is refused; "" where it is not."""
    try:
        read()
    except InputError as error:
        return str(error)
    return ""


@st.composite
def tables(draw: st.DrawFn) -> tuple[str, bytes, list[int]]:
    """Ending, content and labels in the order of NAMES."""
    labels = draw(st.permutations(LABELS))
    form = draw(st.sampled_from(["{}", "{}.0", "{}."]))
    columns = {
        draw(st.sampled_from(["path", "filename", "File Name", "image"])): list(NAMES),
        draw(st.sampled_from(["label", "class", "Category", "target"])): [form.format(label) for label in labels],
    }
    if draw(st.booleans()):
        columns["score"] = ["0.5"] * len(NAMES)
    header = draw(st.permutations(list(columns)))
    order = draw(st.permutations(range(len(NAMES))))
    buffer = io.StringIO(newline="")
    writer = csv.writer(
        buffer,
        delimiter=draw(st.sampled_from([",", ";", "\t"])),
        quoting=draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])),
        lineterminator=draw(st.sampled_from(["\n", "\r\n", "\r"])),
    )
    writer.writerow(header)
    writer.writerows([[columns[name][row] for name in header] for row in order])
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]))
    return draw(st.sampled_from([".csv", ".tsv"])), buffer.getvalue().encode(encoding), list(labels)


@FAST
@given(table=tables())
def test_every_way_of_writing_gives_the_same_labels(folder: Path, table: tuple[str, bytes, list[int]]) -> None:
    ending, content, labels = table
    file = folder / f"l{ending}"
    file.write_bytes(content)
    assert read_label_file(str(file), "", dataset()).tolist() == labels
    found = list_by_file(folder, str(file), None)
    split = found.splits["train"]
    assert found.class_ids == ("0", "1", "2")
    assert dict(zip(split.names, split.labels.tolist(), strict=True)) == dict(zip(NAMES, labels, strict=True))


@FAST
@given(
    labels=st.lists(CELLS, min_size=len(NAMES), max_size=len(NAMES)),
    delimiter=st.sampled_from([",", ";", "\t"]),
)
def test_cells_of_garbage_are_labels_or_one_line(folder: Path, labels: list[str], delimiter: str) -> None:
    """A list that is accepted has one class for each different text, but for 1 and 1.0, blanks and Unicode forms."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerow(["path", "label"])
    writer.writerows(zip(NAMES, labels, strict=True))
    file = folder / "garbage.csv"
    file.write_bytes(buffer.getvalue().encode("utf-8", "replace"))
    if message := refusal(lambda: list_by_file(folder, str(file), None)):
        assert message.startswith(f"{file}:") and "\n" not in message
        return
    found = list_by_file(folder, str(file), None)
    numbers = found.splits["train"].labels.tolist()
    texts = [label.strip() for label in labels]
    assert len(numbers) == len(NAMES) and not {"", "NaN"} & set(texts)
    # a text is one class, and different texts are one class only where the note says so
    assert len(set(zip(texts, numbers, strict=True))) == len(set(texts))
    assert found.note or len(set(texts)) == len(found.class_ids)


@FAST
@given(
    content=st.one_of(st.binary(max_size=80), st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace")))
)
def test_files_of_garbage_are_one_line(folder: Path, content: bytes) -> None:
    for ending in (".csv", ".tsv", ".txt", ".parquet", ".json", ".npy", ".npz", ".pt"):
        file = folder / f"bytes{ending}"
        file.write_bytes(content)
        message = refusal(lambda file=file: read_label_file(str(file), "", dataset()))
        assert message and "\n" not in message
        if ending in TABLE_ENDINGS:
            assert "\n" not in refusal(lambda file=file: list_by_file(folder, str(file), None))


@FAST
@given(cut=st.integers(0, 400), flip=st.integers(0, 400))
def test_damaged_arrays_are_labels_or_one_line(folder: Path, cut: int, flip: int) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array(LABELS))
    content = bytearray(buffer.getvalue())
    if flip < len(content):
        content[flip] ^= 0x5A
    file = folder / "damaged.npy"
    file.write_bytes(bytes(content[: len(content) - cut] if cut < len(content) else content))
    assert "\n" not in refusal(lambda: read_label_file(str(file), "", dataset()))
