"""environment.json's commit."""

import subprocess
from pathlib import Path

from fastcpc.engine.outputs.environment import git_commit


def git(root: Path, *command: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", "-C", root, *identity, *command], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_commit_of_a_git_checkout(tmp_path: Path) -> None:
    assert git_commit(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert git_commit(tmp_path) is None  # no commit yet
    (tmp_path / "file").write_text("1")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-qm", "one")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert git_commit(tmp_path) == commit
    (tmp_path / "file").write_text("22")
    assert git_commit(tmp_path) == f"{commit}-dirty"


def test_folder_inside_another_checkout_has_no_commit(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-qm", "one", "--allow-empty")
    (tmp_path / "site-packages").mkdir()
    assert git_commit(tmp_path) is not None
    assert git_commit(tmp_path / "site-packages") is None
