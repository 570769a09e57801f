"""CIFAR in both published layouts, by value, and every way in which a copy on disk can be wrong."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastcpc.config.schema import DataConfig
from fastcpc.data.datasets.cifar import load_cifar
from fastcpc.data.datasets.cifar_meta import CIFAR10, CIFAR100, CifarFacts
from fastcpc.data.registry import load_dataset
from fastcpc.errors import InputError

Write = Callable[..., Path]


def expected_train(facts: CifarFacts, num_files: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and labels that the fixture wrote, joined in file order."""
    pixels, labels = [], []
    for seed in range(num_files):
        draws = np.random.default_rng(seed)
        shape = (facts.train_records, 3, facts.image_size, facts.image_size)
        pixels.append(draws.integers(0, 256, (shape[0], facts.pixel_bytes), dtype=np.uint8).reshape(shape))
        labels.append(np.arange(facts.train_records) % facts.num_classes)
    return np.concatenate(pixels), np.concatenate(labels)


@pytest.mark.parametrize("inner", [True, False], ids=["inner folder", "parent"])
@pytest.mark.parametrize("form", ["binary", "python2", "python3"])
def test_cifar10_by_value(facts10: CifarFacts, write_cifar: Write, pickle2: Any, form: str, inner: bool) -> None:
    folder = (
        write_cifar(facts10, "python", pickle2)
        if form == "python3"
        else write_cifar(facts10, "binary" if form == "binary" else "python")
    )
    dataset = load_cifar(str(folder if inner else folder.parent), facts10)
    pixels, labels = expected_train(facts10, 5)
    assert (dataset.train.pixels.numpy() == pixels).all()
    assert dataset.train.labels.dtype == np.int64
    assert (dataset.train.labels == labels).all()
    assert dataset.train.source_index.tolist() == list(range(20))
    assert dataset.train.names[17] == "train/00017"
    assert dataset.tests["test"].pixels.shape == (3, 3, 2, 2)
    assert dataset.class_names[9] == "truck"
    assert dataset.num_classes == 10
    assert (dataset.in_channels, dataset.image_size) == (3, 2)
    assert (dataset.weak.flip, dataset.weak.padding) == (True, 4)


@pytest.mark.parametrize("kind", ["binary", "python"])
def test_cifar100_by_value(facts100: CifarFacts, write_cifar: Write, kind: str) -> None:
    dataset = load_cifar(str(write_cifar(facts100, kind)), facts100)
    pixels, labels = expected_train(facts100, 1)
    assert (dataset.train.pixels.numpy() == pixels).all()
    assert (dataset.train.labels == labels).all()
    assert dataset.class_names == ("class_a", "class_b", "class_c", "class_d", "class_e", "class_f")
    assert dataset.superclass_of == (0, 1, 0, 1, 0, 1)


def test_column_major_pixels(facts10: CifarFacts, write_cifar: Write, pickle2: Any) -> None:
    """NumPy pickles a transposed array in its own order of memory."""
    path = write_cifar(facts10, "python") / "data_batch_1"
    rows = np.arange(48, dtype=np.uint8).reshape(4, 12)
    path.write_bytes(pickle2({"data": np.asfortranarray(rows), "labels": [0, 1, 2, 3]}))
    assert (load_cifar(str(path.parent), facts10).train.pixels[:4].flatten(1).numpy() == rows).all()


def test_published_facts() -> None:
    assert CIFAR10.label_bytes + CIFAR10.pixel_bytes == 3073
    assert CIFAR10.train_records == 10_000
    assert CIFAR100.label_bytes + CIFAR100.pixel_bytes == 3074
    assert CIFAR100.train_records == 50_000
    assert (CIFAR10.mean, CIFAR10.std) == ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
    assert (CIFAR100.mean, CIFAR100.std) == ((0.507, 0.487, 0.441), (0.267, 0.256, 0.276))


def test_a_copy_in_another_order_is_noticed(facts10: CifarFacts, write_cifar: Write) -> None:
    folder = str(write_cifar(facts10, "binary"))
    assert load_cifar(folder, replace(facts10, first_labels=(0, 1, 2, 3, 0))).published_order
    assert not load_cifar(folder, replace(facts10, first_labels=(0, 1, 2, 4))).published_order


def test_messages_have_the_published_counts(facts10: CifarFacts, write_cifar: Write) -> None:
    folder = write_cifar(facts10, "binary")
    with pytest.raises(
        InputError, match=r"data_batch_1.bin: 52 bytes, expected 30,730,000 \(10,000 records of 3,073\)"
    ):
        load_dataset(DataConfig(name="cifar10", root=str(folder)))


def fails(root: Path | str, facts: CifarFacts) -> str:
    """The one line with which loading fails."""
    with pytest.raises(InputError) as caught:
        load_cifar(str(root), facts)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_root(facts10: CifarFacts) -> None:
    assert fails("", facts10).startswith(
        "data.root is empty: name the folder that holds CIFAR-10's cifar-10-batches-bin"
    )


def test_missing_folder(facts10: CifarFacts, tmp_path: Path) -> None:
    assert "nowhere: no such folder; it must hold CIFAR-10's" in fails(tmp_path / "nowhere", facts10)


def test_nothing_there_names_files_places_and_layouts(facts10: CifarFacts, tmp_path: Path) -> None:
    message = fails(tmp_path, facts10)
    assert "no CIFAR-10 here; expected cifar-10-batches-bin (data_batch_1.bin," in message
    assert "or cifar-10-batches-py (data_batch_1," in message
    assert f"sought in {tmp_path}, {tmp_path / 'cifar-10-batches-bin'}, {tmp_path / 'cifar-10-batches-py'}" in message


def test_archive_not_unpacked(facts10: CifarFacts, tmp_path: Path) -> None:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"")
    assert "; unpack cifar-10-python.tar.gz first; expected" in fails(tmp_path, facts10)


def test_one_file_missing(facts10: CifarFacts, write_cifar: Write) -> None:
    folder = write_cifar(facts10, "binary")
    (folder / "data_batch_3.bin").unlink()
    assert fails(folder.parent, facts10) == f"{folder}: CIFAR-10 is not whole here, missing: data_batch_3.bin"


def test_class_names_file_missing(facts100: CifarFacts, write_cifar: Write) -> None:
    folder = write_cifar(facts100, "python")
    (folder / "meta").unlink()
    assert fails(folder, facts100).endswith("CIFAR-100 is not whole here, missing: meta")


def test_truncated_binary(facts10: CifarFacts, write_cifar: Write) -> None:
    path = write_cifar(facts10, "binary") / "data_batch_2.bin"
    path.write_bytes(path.read_bytes()[:-1])
    assert fails(path.parent, facts10) == (
        f"{path}: 51 bytes, expected 52 (4 records of 13): the file is truncated, or not CIFAR-10's"
    )


@pytest.mark.parametrize(
    ("position", "message"),
    [
        (14 * 3 + 1, "label 200 of record 3 is outside 0..5"),
        (14 * 2, "coarse label 200 of record 2 is outside 0..1"),
    ],
)
def test_binary_labels_out_of_range(facts100: CifarFacts, write_cifar: Write, position: int, message: str) -> None:
    path = write_cifar(facts100, "binary") / "train.bin"
    content = bytearray(path.read_bytes())
    content[position] = 200
    path.write_bytes(content)
    assert fails(path.parent, facts100) == f"{path}: {message}"


def test_class_in_two_superclasses(facts100: CifarFacts, write_cifar: Write) -> None:
    path = write_cifar(facts100, "binary") / "train.bin"
    content = bytearray(path.read_bytes())
    content[0] = 1  # record 0 is of class 0, and so is record 6, which says 0
    path.write_bytes(content)
    assert "class 0 occurs with coarse labels 1 and 0" in fails(path.parent, facts100)


def test_class_without_a_record(facts100: CifarFacts, write_cifar: Write) -> None:
    path = write_cifar(facts100, "binary") / "train.bin"
    content = bytearray(path.read_bytes())
    content[14 * 5 + 1] = content[14 * 11 + 1] = 3
    path.write_bytes(content)
    assert fails(path.parent, facts100).endswith("no training record of class 5")


def test_too_few_class_names(facts100: CifarFacts, write_cifar: Write) -> None:
    path = write_cifar(facts100, "binary") / "fine_label_names.txt"
    path.write_text("apple\napple\nbear\n")
    assert fails(path.parent, facts100) == f"{path}: 2 different class names, expected 6"


def test_class_names_of_another_type_are_an_error(facts100: CifarFacts, write_cifar: Write) -> None:
    path = write_cifar(facts100, "python") / "meta"
    path.write_bytes(pickle.dumps({"fine_label_names": 7}))
    assert fails(path.parent, facts100) == f"{path}: 'fine_label_names' is not a list of names"


GOOD = {"data": np.zeros((4, 12), np.uint8), "labels": [0, 1, 2, 3]}

BAD_PICKLES = {
    "no data": ({"labels": [0]}, "no 'data' in it; this is not a file of CIFAR-10's Python version"),
    "no labels": ({"data": GOOD["data"]}, "no 'labels' in it"),
    "a list": ([1, 2], "holds list, expected a dict with named entries"),
    "nameless entries": ({1: 2}, "holds dict, expected a dict with named entries"),
    "other type": ({**GOOD, "data": np.zeros((4, 12), np.int64)}, "'data' is int64 (4, 12), expected uint8 (4, 12)"),
    "other shape": ({**GOOD, "data": np.zeros((4, 3), np.uint8)}, "'data' is uint8 (4, 3), expected uint8 (4, 12)"),
    "data is text": ({**GOOD, "data": "abc"}, "'data' is str, expected uint8 (4, 12)"),
    "too few labels": ({**GOOD, "labels": [0, 1, 2]}, "3 entries in labels, expected 4"),
    "label too large": ({**GOOD, "labels": [0, 1, 10, 3]}, "labels 10 of record 2 is outside 0..9"),
    "negative label": ({**GOOD, "labels": [0, -1, 1, 3]}, "labels -1 of record 1 is outside 0..9"),
    "fractional label": ({**GOOD, "labels": [0, 1.5, 1, 3]}, "labels is not a list of whole numbers"),
    "float labels": ({**GOOD, "labels": np.zeros(4)}, "labels is not a list of whole numbers"),
    "object array": (
        {**GOOD, "data": np.array([None, {}], object)},
        "not a data file that is safe to read: an array of type 'O8', where only plain numbers are read",
    ),
    "structured array": (
        {**GOOD, "data": np.zeros(4, [("a", "u1")])},
        "not a data file that is safe to read: an array of type 'V1', where only plain numbers are read",
    ),
    "array subclass": (
        {**GOOD, "data": np.ma.masked_array([1, 2])},
        "not a data file that is safe to read: it asks for numpy.ma",
    ),
    "set": ({**GOOD, "more": {1}}, "not a data file that is safe to read: it asks for __builtin__.set"),
}


@pytest.mark.parametrize("case", BAD_PICKLES)
def test_bad_pickles(facts10: CifarFacts, write_cifar: Write, pickle2: Any, case: str) -> None:
    content, message = BAD_PICKLES[case]
    path = write_cifar(facts10, "python") / "data_batch_4"
    path.write_bytes(pickle2(content))
    assert fails(path.parent, facts10).startswith(f"{path}: {message}")


def reduce_call(module: bytes, name: bytes, argument: bytes) -> bytes:
    return b"c" + module + b"\n" + name + b"\n(U" + bytes([len(argument)]) + argument + b"tR."


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_would_run_a_command(facts10: CifarFacts, write_cifar: Write, bomb: Any, protocol: int) -> None:
    path = write_cifar(facts10, "python") / "data_batch_1"
    path.write_bytes(pickle.dumps({**GOOD, "labels": bomb}, protocol=protocol))
    message = fails(path.parent, facts10)
    assert message.endswith(
        "not a data file that is safe to read: it asks for posix.system, which a data file has no use for"
    )
    assert not bomb.mark.exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (reduce_call(b"__builtin__", b"eval", b"1"), "it asks for __builtin__.eval"),
        (reduce_call(b"numpy", b"core.multiarray._reconstruct", b"1"), "damaged or truncated (TypeError)"),
        (reduce_call(b"numpy", b"load", b"x.npy"), "it asks for numpy.load"),
        (reduce_call(b"numpy", b"dtype", b"O8"), "an array of type 'O8'"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.", "it asks for numpy.ndarray.tofile"),
        (b"cnumpy.core.multiarray\n_reconstruct\n(c_codecs\nencode\nK\x00U\x01btR.", "an array of an unknown kind"),
        (reduce_call(b"_codecs", b"encode", b"x")[:-3] + b"U\x06rot_13tR.", "text in an encoding other than latin1"),
        (b"\x80\x02(lp0\n", "damaged or truncated"),
        (b"Pwhat\n.", "A load persistent id instruction was encountered"),
        (b"\x82\x01.", "damaged or truncated (ValueError)"),
        (b"", "damaged or truncated (EOFError)"),
    ],
)
def test_hostile_opcodes(facts10: CifarFacts, write_cifar: Write, content: bytes, reason: str) -> None:
    path = write_cifar(facts10, "python") / "test_batch"
    path.write_bytes(content)
    assert fails(path.parent, facts10).startswith(f"{path}: not a data file that is safe to read: {reason}")


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ((1, (4, 12), np.dtype("u1"), False, b"short"), "an array whose bytes do not fit its shape"),
        ((1, (-4, 12), np.dtype("u1"), False, b"x"), "an array with an impossible shape"),
        ((1, (1 << 40, 1 << 40), np.dtype("u1"), False, b"x"), "an array whose bytes do not fit its shape"),
        ((1, (1,), "u1", False, b"x"), "an array without a type or a shape"),
        ((1, (1,)), "an array whose state is not the usual five parts"),
    ],
)
def test_inconsistent_arrays_are_an_error(
    facts10: CifarFacts, write_cifar: Write, pickle2: Any, state: tuple[Any, ...], reason: str
) -> None:
    class Forged:
        def __reduce__(self) -> Any:
            return np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), state

    path = write_cifar(facts10, "python") / "test_batch"
    path.write_bytes(pickle2({**GOOD, "data": Forged()}))
    assert fails(path.parent, facts10).endswith(f"safe to read: {reason}")


def test_truncated_pickle(facts10: CifarFacts, write_cifar: Write) -> None:
    path = write_cifar(facts10, "python") / "data_batch_5"
    path.write_bytes(path.read_bytes()[:80])
    assert fails(path.parent, facts10).startswith(f"{path}: not a data file that is safe to read: ")
