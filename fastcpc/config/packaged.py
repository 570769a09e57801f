"""The configs that are installed with fastcpc: found by name from any folder.

fastcpc/configs is a symbolic link to configs/ of the repository; a wheel contains the files.
"""

import difflib
from pathlib import Path

CONFIGS = Path(__file__).parents[1] / "configs"
BASES = "base"  # settings that several configs share; not runs


def find_config(path: Path) -> Path:
    """The config file that a user means: the path where it exists, else the packaged config of this name.

    The name is that of ``names``, with or without .yaml. The path itself comes back where neither exists.
    """
    name = _name(path)
    return CONFIGS / f"{name}.yaml" if name in names() and not _exists(path) else path


def names() -> list[str]:
    """Names of the packaged configs, such as digits_sym80 and fast/digits_sym80."""
    files = sorted(CONFIGS.glob("*.yaml")) + sorted(CONFIGS.glob("*/*.yaml"))
    found = [file.relative_to(CONFIGS).with_suffix("").as_posix() for file in files]
    return [name for name in found if not name.startswith(f"{BASES}/")]


def nearest_name(path: Path) -> list[str]:
    """The packaged config whose name is nearest to a path that does not exist; empty where none is near."""
    return difflib.get_close_matches(_name(path).removeprefix("configs/"), names(), n=1)


def list_text() -> str:
    """A line per packaged config: its name and the first line of its comment."""
    found = names()
    width = max(map(len, found), default=0)
    return "\n".join(f"{name:<{width}}  {_about(CONFIGS / f'{name}.yaml')}" for name in found)


def _about(file: Path) -> str:
    first = file.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def _name(path: Path) -> str:
    return path.as_posix().removesuffix(".yaml")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # ValueError: a null byte in the path
        return False
