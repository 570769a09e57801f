"""Names of one file in several spellings compare equal; names of different files do not."""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastcpc.data.paths import same_name, spelled_on_disk

NFC, NFD = "caf\u00e9.jpg", "cafe\u0301.jpg"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/b.jpg", "a/b.jpg"),
        ("./a/b.jpg", "a/b.jpg"),
        ("a/./b.jpg", "a/b.jpg"),
        ("a//b.jpg", "a/b.jpg"),
        ("/a//b.jpg", "/a/b.jpg"),
        ("//a/./b.jpg", "/a/b.jpg"),
        ("a/b/", "a/b"),
        ("a/b/.", "a/b"),
        ("../a.jpg", "../a.jpg"),
        ("a/../b.jpg", "a/../b.jpg"),
        ("a./b.jpg", "a./b.jpg"),
        (".hidden/b.jpg", ".hidden/b.jpg"),
        ("a\\b.jpg", "a\\b.jpg"),
        (f"x/{NFD}", f"x/{NFC}"),
        ("x/caf\udce9.jpg", "x/caf\udce9.jpg"),
    ],
)
def test_canonical_name(path: str, expected: str) -> None:
    assert same_name(path) == expected


@given(st.text(st.sampled_from("a./\u00e9e\u0301\uac01"), max_size=12))
def test_canonical_name_is_stable(path: str) -> None:
    assert same_name(same_name(path)) == same_name(path) == same_name(unicodedata.normalize("NFD", path))


@pytest.mark.parametrize(("written", "listed"), [(NFC, NFD), (NFD, NFC), (NFC, NFC), ("a.jpg", "a.jpg")])
def test_spelling_on_disk(tmp_path: Path, written: str, listed: str) -> None:
    folder = tmp_path / unicodedata.normalize("NFD", "k\u00e4se")
    folder.mkdir()
    (folder / written).touch()
    name = f"./{unicodedata.normalize('NFC', folder.name)}/{listed}"
    assert (tmp_path / spelled_on_disk(tmp_path, [name])[0]).is_file()
    assert (tmp_path / spelled_on_disk("/nowhere", [f"{folder}/{listed}"])[0]).is_file()


def test_name_that_does_not_exist_is_kept(tmp_path: Path) -> None:
    assert spelled_on_disk(tmp_path, [f"no/{NFD}", "b"]) == [f"no/{NFD}", "b"]
