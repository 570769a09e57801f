"""Image lists in the forms that spreadsheets, pandas and other tools write."""

from pathlib import Path

import pyarrow as pa
import pytest
from label_bytes import NFC, NFD, parquet

from fastcpc.data.datasets.image_list import list_by_file
from fastcpc.errors import InputError


def rows(header: str, *labels: str) -> bytes:
    """A CSV with one image per label."""
    return "\n".join([header, *(f"{k}.jpg,{label}" for k, label in enumerate(labels)), ""]).encode()


# name -> (file, content, class ids, class number per row, part of the note; "" for no note)
LISTS: dict[str, tuple[str, bytes, tuple[str, ...], list[int], str]] = {
    "plain": ("l.csv", rows("path,label", "b", "a"), ("a", "b"), [1, 0], ""),
    "no header": ("l.csv", b"0.jpg,b\n1.jpg,a\n", ("a", "b"), [1, 0], "no header, read as path and label"),
    "semicolons": ("l.csv", b"path;label\n0,5.jpg;b\n1.jpg;a\n", ("a", "b"), [1, 0], "semicolon-separated"),
    "tabs in a csv": ("l.csv", b"path\tlabel\n0.jpg\tb\n1.jpg\ta\n", ("a", "b"), [1, 0], "tab-separated"),
    "sep=": ("l.csv", b"sep=;\r\npath;label\r\n0.jpg;b\r\n1.jpg;a\r\n", ("a", "b"), [1, 0], "semicolon-separated"),
    "Excel Unicode text": (
        "l.txt",
        "filename\tclass\r\n0.jpg\tb c\r\n1.jpg\ta\r\n".encode("utf-16"),
        ("a", "b c"),
        [1, 0],
        "read as tab-separated UTF-16; columns 'filename' as path, 'class' as label",
    ),
    "UTF-16 without mark": (
        "l.csv",
        "path,label\n0.jpg,b\n1.jpg,a\n".encode("utf-16-le"),
        ("a", "b"),
        [1, 0],
        "UTF-16 without byte order mark",
    ),
    "UTF-8 mark": ("l.csv", b"\xef\xbb\xbf" + rows("path,label", "b", "a"), ("a", "b"), [1, 0], ""),
    "Latin-1": (
        "l.csv",
        rows("path,label", NFC, "a").decode().encode("latin-1"),
        ("a", NFC),
        [1, 0],
        f"Latin-1 ('{NFC}')",
    ),
    "old Mac": ("l.csv", rows("path,label", "b", "a").replace(b"\n", b"\r"), ("a", "b"), [1, 0], ""),
    "pandas index": (
        "l.csv",
        b",path,label\n0,0.jpg,b\n1,1.jpg,a\n",
        ("a", "b"),
        [1, 0],
        "column without a name ignored",
    ),
    "other names": (
        "l.csv",
        rows("File Name,Category", "b", "a"),
        ("a", "b"),
        [1, 0],
        "'File Name' as path, 'Category' as label",
    ),
    "own name wins": ("l.csv", b"path,label,class\n0.jpg,b,x\n1.jpg,a,x\n", ("a", "b"), [1, 0], ""),
    "text with a header": ("l.txt", b"path label\n0 0.jpg b\n1.jpg a\n", ("a", "b"), [1, 0], ""),
    "floats": (
        "l.csv",
        rows("path,label", *(f"{k}.0" for k in range(12))),
        tuple(map(str, range(12))),
        list(range(12)),
        "labels like 0.0 read as 0; classes in numeric order",
    ),
    "mixed 3 and 3.0": (
        "l.csv",
        rows("path,label", "0", "1.0", "1"),
        ("0", "1"),
        [0, 1, 1],
        "labels like 1.0 read as 1",
    ),
    "from 1": ("l.csv", rows("path,label", "2", "1", "3"), ("1", "2", "3"), [1, 0, 2], "labels count from 1"),
    "zeros": ("l.csv", rows("path,label", "00", "01", "10"), ("00", "01", "10"), [0, 1, 2], ""),
    "zeros above their width": (
        "l.csv",
        rows("path,label", "100", "01", "11"),
        ("01", "11", "100"),
        [2, 0, 1],
        "classes in numeric order",
    ),
    "Booleans": (
        "l.csv",
        rows("path,label", "True", "False"),
        ("False", "True"),
        [1, 0],
        "False and True are two classes",
    ),
    "NFC and NFD labels": ("l.csv", rows("path,label", NFD, NFC, "a"), ("a", NFC), [1, 1, 0], "two Unicode forms"),
    "blanks": ("l.csv", b"path , label\n0.jpg , b\n1.jpg,a \n", ("a", "b"), [1, 0], ""),
    "repeated rows": (
        "l.csv",
        b"path,label\n0.jpg,b\n1.jpg,a\n./0.jpg,b\n",
        ("a", "b"),
        [1, 0],
        "1 row that repeats an image",
    ),
    "pandas categories": (
        "l.parquet",
        parquet(path=["0.jpg", "1.jpg"], label=pa.array(["b", "a"]).dictionary_encode()),
        ("a", "b"),
        [1, 0],
        "",
    ),
    "Parquet Booleans": (
        "l.parquet",
        parquet(path=["0.jpg", "1.jpg"], label=[True, False]),
        ("False", "True"),
        [1, 0],
        "two classes",
    ),
    "Parquet floats": (
        "l.parquet",
        parquet(image=["0.jpg", "1.jpg"], label=[1.0, 0.0]),
        ("0", "1"),
        [1, 0],
        "'image' as path",
    ),
    "Parquet of images": (
        "l.parquet",
        parquet(image=[{"bytes": b"x"}] * 2, path=["0.jpg", "1.jpg"], label=[1, 0]),
        ("0", "1"),
        [1, 0],
        "",
    ),
}


@pytest.mark.parametrize("case", LISTS)
def test_list_forms(tmp_path: Path, case: str) -> None:
    name, content, ids, labels, note = LISTS[case]
    (tmp_path / name).write_bytes(content)
    found = list_by_file(tmp_path, str(tmp_path / name), None)
    assert (found.class_ids, found.splits["train"].labels.tolist()) == (ids, labels)
    assert note in found.note and bool(note) == bool(found.note), found.note
    assert "\n" not in found.note and found.note.startswith(str(tmp_path / name) if note else "")


BAD_LISTS = {
    "leading zeros": (
        rows("path,label", "0", "01", "2"),
        ":3: label '01' and label '0' have other leading zeros; write",
    ),
    "case": (rows("path,label", "cat", "Cat"), ":2: label 'cat' differs from label 'Cat' only in case; write one"),
    "inner blanks": (rows("path,label", "a b", "a  b"), ":2: label 'a b' differs from label 'a  b' only in form"),
    "wide digits": (rows("path,label", "a3", "a\uff13"), ":3: label 'a\uff13' differs from label 'a3' only in form"),
    "N/A": (
        rows("path,label", "a", "N/A", "b", "NaN"),
        ":3: no label ('N/A', 2 rows in all); give these images a label",
    ),
    "-1": (rows("path,label", "0", "1", "-1"), ":4: no label ('-1', 1 row in all); give these images"),
    "-1.0": (rows("path,label", "0.0", "1.0", "-1.0"), ":4: no label ('-1.0', 1 row in all)"),
    "fraction": (
        rows("path,label", "0", "1", "0.5"),
        ":4: label '0.5' is not a whole number, and other labels are; correct it, or name both in data.classes",
    ),
    "exponent": (rows("path,label", "0", "1", "1e0"), ":4: label '1e0' is not a whole number, and other labels are"),
    "negative": (rows("path,label", "0", "1", "-2"), ":4: label '-2' is negative; number the classes from 0"),
    "one image, two labels": (
        b"path,label\na.jpg,x\n./a.jpg,y\n",
        ":3: './a.jpg' again, with 'y'; line 2 gives it 'x'; keep one",
    ),
    "NFC and NFD names": (
        f"path,label\n{NFC}.jpg,x\n{NFD}.jpg,y\n".encode(),
        f":3: '{NFD}.jpg' again, with 'y'; line 2 gives it 'x'; keep one",
    ),
    "one image, two splits": (
        b"path,label,split\na.jpg,x,train\nb.jpg,y,train\na.jpg,x,test\n",
        ":4: 'a.jpg' again, with 'test'; line 2 gives it 'train'",
    ),
    "two paths": (
        b"image,filename,label\na.jpg,b.jpg,x\n",
        ":1: 'image' and 'filename' can both be the column path; rename",
    ),
    "two labels": (
        b"path,class,category\na.jpg,b,x\n",
        ":1: 'class' and 'category' can both be the column label; rename",
    ),
    "backslashes": (
        b"path,label\na\\0.jpg,x\n",
        ":2: backslashes in 'a\\\\0.jpg' (no such file, with backslashes or with slashes)",
    ),
    "Chinese in GBK": (
        "path,label\na.jpg,\u4e2d\u6587\n".encode("gbk"),
        ":2: not text in UTF-8 (byte 17: 0xd6); save the file",
    ),
    "Cyrillic in 1251": (
        "path,label\na.jpg,\u043a\u043e\u0442\n".encode("cp1251"),
        ":2: not text in UTF-8 (byte 17: 0xea)",
    ),
    "NUL": (b"path,label\na.jpg,\0\n", ":2: not a text file (NUL bytes); save the file as UTF-8"),
    "uneven semicolons": (b"path;label\na;b;c\n", ":2: 3 fields, expected 2 (path, label); put a path that"),
    "two delimiters": (b"x;1,a\ny;2,b\n", ":1: comma-separated or semicolon-separated ('x;1,a'); name the columns"),
}


@pytest.mark.parametrize("case", BAD_LISTS)
def test_lists_in_doubt_are_refused(tmp_path: Path, case: str) -> None:
    content, message = BAD_LISTS[case]
    (tmp_path / "l.csv").write_bytes(content)
    with pytest.raises(InputError) as caught:
        list_by_file(tmp_path, str(tmp_path / "l.csv"), None)
    assert str(caught.value).startswith(f"{tmp_path / 'l.csv'}{message}")
    assert "\n" not in str(caught.value)


def test_backslashes_become_slashes_where_files_exist(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.jpg").touch()
    (tmp_path / "l.csv").write_text("path,label\na\\0.jpg,x\na\\1.jpg,y\n")
    found = list_by_file(tmp_path, str(tmp_path / "l.csv"), None)
    assert found.splits["train"].names == ("a/0.jpg", "a/1.jpg")
    assert "2 paths with backslashes read with slashes" in found.note
    (tmp_path / "a\\0.jpg").touch()
    with pytest.raises(InputError, match="both kinds of names exist"):
        list_by_file(tmp_path, str(tmp_path / "l.csv"), None)


def test_file_of_another_unicode_form_is_found(tmp_path: Path) -> None:
    (tmp_path / f"{NFD}.jpg").touch()
    (tmp_path / "l.csv").write_text(f"path,label\n{NFC}.jpg,x\nb.jpg,y\n")
    split = list_by_file(tmp_path, str(tmp_path / "l.csv"), None).splits["train"]
    assert Path(split.paths[0]).is_file() and split.names[0] == f"{NFC}.jpg"


def test_true_labels_as_floats_with_gaps(tmp_path: Path) -> None:
    """As pandas writes a column of numbers in which some are missing."""
    (tmp_path / "l.csv").write_text("path,label,trusted_label\na,0,1.0\nb,1,\nc,1,0.0\n")
    for file in ("l.csv", "l.parquet"):
        if file == "l.parquet":
            content = parquet(path=["a", "b", "c"], label=[0, 1, 1], trusted_label=[1.0, float("nan"), 0.0])
            (tmp_path / file).write_bytes(content)
        trusted = list_by_file(tmp_path, str(tmp_path / file), None).splits["train"].trusted
        assert trusted is not None and trusted.tolist() == [1, -1, 0]


KNOWN = [("NA", "NA"), ("Cat", "Cat"), ("-1", "-1")]


def test_class_file_names_labels_that_look_missing(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("path,label\na,NA\nb,Cat\nc,-1\n")
    found = list_by_file(tmp_path, str(tmp_path / "l.csv"), KNOWN)
    assert found.splits["train"].labels.tolist() == [0, 1, 2] and found.note == ""


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("cat", ":2: label 'cat' differs from class 'Cat' of data.classes only in case"),
        ("dog", ":2: label 'dog' is no class of data.classes; add it there"),
        ("1 2 3", ":4: label '3' is outside 0..2: labels look 1-based; subtract 1 from each"),
        ("null", ":2: no label ('null', 1 row in all)"),
    ],
)
def test_labels_outside_the_class_file(tmp_path: Path, labels: str, message: str) -> None:
    (tmp_path / "l.csv").write_bytes(rows("path,label", *labels.split()))
    with pytest.raises(InputError) as caught:
        list_by_file(tmp_path, str(tmp_path / "l.csv"), KNOWN)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("names", "labels", "expected"),
    [
        ("1 2 3", "1 2 3", [0, 1, 2]),
        ("1 2 3", "1.0 2.0 3.0", [0, 1, 2]),
        ("1 2 3", "0 1 2", ":2: label '0' is no class of data.classes"),
        ("01 02 03", "01 02 03", [0, 1, 2]),
        ("01 02 03", "1 2 3", ":2: label '1' is no class of data.classes"),
        ("10 20 30", "0 1 2", [0, 1, 2]),
        ("0 1 2", "0 1 2", [0, 1, 2]),
    ],
)
def test_classes_whose_names_are_numbers(tmp_path: Path, names: str, labels: str, expected: list[int] | str) -> None:
    (tmp_path / "l.csv").write_bytes(rows("path,label", *labels.split()))
    known = [(name, name) for name in names.split()]
    if isinstance(expected, str):
        with pytest.raises(InputError, match=expected):
            list_by_file(tmp_path, str(tmp_path / "l.csv"), known)
    else:
        assert list_by_file(tmp_path, str(tmp_path / "l.csv"), known).splits["train"].labels.tolist() == expected
