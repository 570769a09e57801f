"""A run's folder and a folder of images that the user cannot write to: commands work, or end with one line."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from changed_images import sixty_images
from finished_run import finished_run
from nobody import as_nobody


@pytest.fixture
def place() -> Iterator[Path]:
    """run/ and images/ without a right to write, out/ that anybody may write to, and copies in before/."""
    folder = Path(tempfile.mkdtemp())  # pytest's folders are closed to other users
    folder.chmod(0o755)
    finished_run(folder / "run")
    sixty_images(folder / "images", each=6)
    for name in ("run", "images"):
        shutil.copytree(folder / name, folder / "before" / name)
    for parent, folders, _ in os.walk(folder):
        for name in folders:
            os.chmod(Path(parent) / name, 0o755)
    (folder / "before" / "out").mkdir()
    (folder / "out").mkdir()
    (folder / "out").chmod(0o777)
    if os.getuid():  # not root: the same user runs the commands
        for name in ("run", "images"):
            for parent, _, _ in os.walk(folder / name):
                os.chmod(parent, 0o555)
    yield folder
    for name in ("run", "images"):
        for parent, _, _ in os.walk(folder / name):
            os.chmod(parent, 0o755)
    shutil.rmtree(folder)


def test_commands_on_read_only_folders(place: Path) -> None:
    found = json.loads(as_nobody("nobody_runs:commands_on_read_only_folders", place))
    denied = {
        "report": f"fastcpc-report: error: cannot write {place}/run/report.html: Permission denied",
        "clean": f"fastcpc-clean: error: cannot write {place}/run/suspects.csv: Permission denied",
        "eval": f"fastcpc-eval: error: cannot write {place}/run/eval_test_latest.json: Permission denied",
        "prepare": f"fastcpc-prepare: error: {place}/images/.fastcpc-index: cannot be created (Permission denied)",
        "train there": f"fastcpc-train: error: run.dir: {place}/images/trained cannot be used: Permission denied",
    }
    for name, (code, lines) in found.items():
        if name in denied:
            assert code in (1, 2) and len(lines) == 1 and lines[0].startswith(denied[name]), (name, code, lines)
        else:
            assert (code, lines) == (0, []), (name, lines)
    assert len(found) == 7 and (place / "out" / "trained" / "summary.json").exists()
