"""Configs that are installed with fastcpc: found by name, listed, overridden by a path."""

import subprocess
import sys
from pathlib import Path

import pytest
from config_errors import only_problem

from fastcpc.config.load import load_config
from fastcpc.config.packaged import CONFIGS, find_config, list_text, names

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_run_of_the_repository_has_a_name() -> None:
    files = [path.relative_to(ROOT / "configs").as_posix() for path in (ROOT / "configs").rglob("*.yaml")]
    assert sorted(f"{name}.yaml" for name in names()) == sorted(file for file in files if not file.startswith("base/"))


def test_a_name_finds_the_packaged_config_and_its_base() -> None:
    for name in ("digits_sym80", "digits_sym80.yaml", "fast/digits_sym80"):
        config = load_config([Path(name)], [])
        assert (config.data.name, config.noise.rate, config.model.width) == ("digits", 0.8, 32)
    assert load_config([Path("fast/digits_sym80")], []).train.epochs == 15


@pytest.mark.parametrize("name", ["digits_sym80", "digits_sym80.yaml"])
def test_an_existing_path_wins(name: str) -> None:
    Path(name).write_text("run: {seed: 7}\n")
    assert load_config([Path(name)], []).run.seed == 7


@pytest.mark.parametrize("name", ["base/digits", "../configs/digits_sym80", "Digits_sym80", "/digits_sym80", "a\0b"])
def test_other_names_are_paths(name: str) -> None:
    assert find_config(Path(name)) == Path(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digits_sym8", "digits_sym8: no such file or packaged config (did you mean digits_sym80?)"),
        ("configs/digits_sym80.yaml", "configs/digits_sym80.yaml: no such file or packaged config (did you mean "
         "digits_sym80?)"),
        ("zzz", "zzz: no such file or packaged config"),
        ("/zzz", "/zzz: no such file"),
    ],
)  # fmt: skip
def test_neither_a_path_nor_a_name(name: str, message: str) -> None:
    assert only_problem([Path(name)]) == message


def test_the_list_has_a_line_per_config() -> None:
    lines = list_text().splitlines()
    assert [line.split()[0] for line in lines] == names()
    for line in lines:
        name, about = line.split(maxsplit=1)
        assert about[0].isupper() or about[0].isdigit(), name
        assert about.endswith(".") and len(line) <= 120, name


@pytest.mark.slow
def test_a_wheel_contains_the_configs(tmp_path: Path) -> None:
    """Built from a copy, since a build writes into its folder; installed alone, and started from another folder."""
    source = tmp_path / "source"
    files = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in files.splitlines():
        if name.startswith(("fastcpc", "kernels", "configs")) or name in ("setup.py", "pyproject.toml", "README.md"):
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_symlink():
                target.symlink_to((ROOT / name).readlink())
            elif (ROOT / name).exists():
                target.write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(source)]
    subprocess.run(build, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    install = [*pip, "install", "--no-deps", "--target", str(tmp_path / "site"), str(wheel)]
    subprocess.run(install, check=True, capture_output=True, timeout=120)
    done = subprocess.run(
        [sys.executable, "-m", "fastcpc.cli.train", "--config", "fast/digits_sym80", "--print-config"],
        env={"PYTHONPATH": str(tmp_path / "site")}, cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "name: fast_digits_sym80" in done.stdout and "name: digits_cnn" in done.stdout
    installed = sorted(path.relative_to(tmp_path / "site/fastcpc/configs") for path in
                       (tmp_path / "site/fastcpc/configs").rglob("*.yaml"))  # fmt: skip
    assert installed == sorted(path.relative_to(CONFIGS) for path in CONFIGS.rglob("*.yaml"))
