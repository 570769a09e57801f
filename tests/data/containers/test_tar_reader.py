"""Members of tar files: formats, long names, large offsets, and damage."""

import gzip
import io
import tarfile
from pathlib import Path

import pytest
from containers import tar_bytes, write_tar

from fastcpc.data.containers.handles import container_file, read_range
from fastcpc.data.containers.tar_reader import Member, read_members
from fastcpc.errors import InputError, RunError

GIB = 1 << 30
SEVERAL = [("a.jpg", b"x" * 700), ("empty.jpg", b""), ("b c/Ü.PNG", b"y" * 512), (f"{'long/' * 40}name.jpg", b"z")]


def members(path: Path) -> list[Member]:
    return list(read_members(container_file(str(path))))


def contents(path: Path) -> list[tuple[str, bytes]]:
    file = container_file(str(path))
    return [(member.name, read_range(file, member.offset, member.size)) for member in read_members(file)]


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_of_each_format(tmp_path: Path, kind: int) -> None:
    expected = [*SEVERAL[:3], (f"{'long/' * 30}name.jpg", b"z")] if kind == tarfile.USTAR_FORMAT else SEVERAL
    assert contents(write_tar(tmp_path / "x.tar", expected, kind)) == expected


def test_tar_without_the_name_of_a_format(tmp_path: Path) -> None:
    """Version 7 of Unix has no magic number, and a folder is a name that ends with a slash."""
    raw = bytearray(tar_bytes([("d/", b""), ("d/a.jpg", b"abc")], tarfile.USTAR_FORMAT))
    for start in (0, 512):
        raw[start + 257 : start + 265] = bytes(8)
        raw[start + 156] = 0
        raw[start + 148 : start + 156] = b" " * 8
        raw[start + 148 : start + 156] = b"%06o\0 " % sum(raw[start : start + 512])
    (tmp_path / "x.tar").write_bytes(raw)
    assert contents(tmp_path / "x.tar") == [("d/a.jpg", b"abc")]


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_sizes_and_offsets_above_8_gib(tmp_path: Path, kind: int) -> None:
    """The file has holes, so that it takes no space: a member of 9 GiB, and one behind it."""
    path = tmp_path / "x.tar"
    large, small = tarfile.TarInfo("large.bin"), tarfile.TarInfo("a.jpg")
    large.size, small.size = 9 * GIB + 5, 3
    with path.open("wb") as file:
        file.write(large.tobuf(kind))
        file.seek(9 * GIB + 512, io.SEEK_CUR)
        file.write(small.tobuf(kind) + b"abc".ljust(512, b"\0") + bytes(1024))
    assert [member.size for member in members(path)] == [9 * GIB + 5, 3]
    assert contents_of_last(path) == b"abc"


def contents_of_last(path: Path) -> bytes:
    last = members(path)[-1]
    return read_range(container_file(str(path)), last.offset, last.size)


WHOLE = tar_bytes([("a.jpg", b"x" * 3000), ("b.jpg", b"y" * 3000)])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty; download or write the file again"),
        (b"<!DOCTYPE html><html>" + b" " * 900, "is not a tar file (it begins with b'<!DOCTYPE html>"),
        (b"<html>404</html>", "is not a tar file (it begins with b'<html>404</html>')"),
        (gzip.compress(WHOLE), "is compressed (gzip), so single members cannot be read; decompress it first"),
        (WHOLE[:2000], "is cut off in member a.jpg (3,000 bytes, of which the file has 1,488)"),
        (WHOLE[: 3584 + 300], "is cut off after member a.jpg (it has no end mark)"),
        (WHOLE[:7168], "is cut off after member b.jpg (it has no end mark)"),
        (WHOLE[:3584] + b"\7" * 512 + WHOLE[4096:], "is damaged at byte 3,584 (no header of a member)"),
        (WHOLE + WHOLE, "has content after its end mark (joined tar files?)"),
        (WHOLE[:156] + b"S" + WHOLE[157:], "is damaged at byte 0"),
    ],
)
def test_damaged_files_are_one_line(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        members(path)
    if content[156:157] != b"S":
        assert str(error.value).startswith(f"{path}: {problem}")
    assert "\n" not in str(error.value)


def test_links_have_no_content_and_sparse_files_are_refused(tmp_path: Path) -> None:
    link = tarfile.TarInfo("b.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "a.jpg"
    (tmp_path / "x.tar").write_bytes(link.tobuf() + tar_bytes([("a.jpg", b"x")]))
    assert members(tmp_path / "x.tar")[0].link == "a.jpg"
    sparse = tarfile.TarInfo("holes.jpg")
    sparse.type = tarfile.GNUTYPE_SPARSE
    (tmp_path / "y.tar").write_bytes(sparse.tobuf() + bytes(1024))
    with pytest.raises(InputError, match=r"member holes.jpg is a sparse file.*without --sparse"):
        members(tmp_path / "y.tar")


def test_a_file_that_changes_after_its_index_is_an_error(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", [("a.jpg", b"x" * 10)])
    file = container_file(str(path))
    write_tar(path, [("other.jpg", b"y" * 99), ("a.jpg", b"x" * 10)])
    with pytest.raises(RunError, match=r"x.tar: has changed since .* start the command again"):
        read_range(file, 0, 10)
