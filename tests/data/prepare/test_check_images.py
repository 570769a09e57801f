"""What decoding says of damaged, odd and fine files."""

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import image_sets
import pytest
from PIL import Image

from fastcpc.data.image_store import ImageFiles
from fastcpc.data.prepare.check_images import ImageCheck, ResizedImage, check_image, check_images

FINE = image_sets.jpeg(3, (64, 48))


def check_file(path: str) -> tuple[ImageCheck, ResizedImage | None]:
    return check_image(ImageFiles([path]), 0)


def encoded(kind: str, mode: str = "RGB", size: tuple[int, int] = (64, 48), **save: object) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, 7).save(buffer, kind, **save)
    return buffer.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return image_sets.jpeg(3, (64, 48), exif=exif.tobytes())


def noisy() -> bytes:
    """A progressive JPEG whose middle is overwritten: its markers break."""
    content = bytearray(image_sets.jpeg(3, (256, 256)))
    content[len(content) // 2 : len(content) // 2 + 400] = b"\xff\xda" * 200
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "the file is empty"),
        (FINE[: len(FINE) // 2], "image file is truncated"),
        (FINE[:20], "not an image of a known format"),
        (b"<html>404</html>", "not an image of a known format"),
        (noisy(), "broken data stream"),
    ],
)
def test_undecodable_image_has_a_reason(tmp_path: Path, content: bytes, problem: str) -> None:
    check, _ = check_file(str(image_sets.put(tmp_path / "a.jpg", content)))
    assert check.problem.startswith(problem)
    assert check.num_bytes == len(content)


@pytest.mark.parametrize(
    ("content", "note", "size", "kind"),
    [
        (FINE, "", (64, 48), "JPEG"),
        (image_sets.jpeg(3, (64, 48), "L"), "", (64, 48), "JPEG"),
        (image_sets.jpeg(3, (64, 48), "CMYK"), "CMYK instead of RGB", (64, 48), "JPEG"),
        (encoded("PNG"), "PNG named .jpg", (64, 48), "PNG"),
        (encoded("PNG", "RGBA"), "PNG named .jpg, RGBA instead of RGB", (64, 48), "PNG"),
        (encoded("GIF", "P"), "GIF named .jpg, P instead of RGB", (64, 48), "GIF"),
        (turned(), "turned by EXIF", (64, 48), "JPEG"),
        (image_sets.jpeg(0, (1, 1)), "shorter side of 1 px", (1, 1), "JPEG"),
    ],
)
def test_unusual_images_decode_with_a_note(
    tmp_path: Path, content: bytes, note: str, size: tuple[int, int], kind: str
) -> None:
    check, _ = check_file(str(image_sets.put(tmp_path / "a.jpg", content)))
    assert (check.problem, check.note, (check.width, check.height), check.format) == ("", note, size, kind)


def test_missing_file_and_folder_have_a_reason(tmp_path: Path) -> None:
    assert check_file(str(tmp_path / "no.jpg"))[0].problem == "no such file"
    (tmp_path / "folder.jpg").mkdir()
    assert check_file(str(tmp_path / "folder.jpg"))[0].problem == "not a file"
    assert check_file(str(image_sets.put(tmp_path / "f") / "x.jpg"))[0].problem == "cannot be read (Not a directory)"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    path = image_sets.put(tmp_path / "a.jpg")
    path.chmod(0)
    assert "Permission denied" in check_file(str(path)).problem


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    """Also that they do not import torch, which takes 600 MB each."""
    path = image_sets.put(tmp_path / "a.jpg", FINE)
    script = (
        "import sys\n"
        "from fastcpc.data.image_store import ImageFiles\n"
        "from fastcpc.data.prepare.check_images import check_images\n"
        "if __name__ == '__main__':\n"
        f"    checks = check_images(ImageFiles([{str(path)!r}] * 2000), 2)\n"
        "    next(checks)\n"
        "    print('torch' in sys.modules, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    (tmp_path / "script.py").write_text(script)
    command = [sys.executable, str(tmp_path / "script.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "False\n"
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        assert len(children) >= 2
        parent.kill()
    deadline = time.monotonic() + 20
    while any(is_running(child) for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


def test_processes_give_the_same_in_the_same_order(tmp_path: Path) -> None:
    paths = [str(image_sets.put(tmp_path / f"{i}.jpg", b"" if i % 7 == 3 else FINE)) for i in range(70)]
    images = ImageFiles(paths)
    checks = list(check_images(images, jobs=2))
    assert checks == list(check_images(images, jobs=1))
    assert [i for i, (check, _) in enumerate(checks) if check.problem] == list(range(3, 70, 7))
