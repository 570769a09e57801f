"""The direction of imports: a module imports from its left only, and heavy libraries have one door each."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ORDER = ["errors", "config", "ranks", "data", "models", "cleaner", "semisup", "engine", "report", "cli"]
KERNELS_MAY = {"torch", "triton", "numpy", "cupy", "__future__"}
ONE_DOOR = {"cupy", "nvidia"}


def modules() -> list[Path]:
    """Every module once: kernels/ under its own name, not again through the link fastcpc/kernels."""
    package = [p for p in (ROOT / "fastcpc").rglob("*.py") if "kernels" not in p.relative_to(ROOT).parts]
    return sorted([*package, *(ROOT / "kernels").rglob("*.py")])


def imports_of(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of each import; relative ones begin with a dot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level + (node.module or "")


def faults_of(path: Path, source: str) -> list[str]:
    """What a module imports that it must not."""
    inside, tree = path.relative_to(ROOT).parts, ast.parse(source)
    faults = []
    layer = inside[1].removesuffix(".py") if inside[0] == "fastcpc" else "kernels"
    for line, name in imports_of(tree):
        where = f"{path.relative_to(ROOT)}:{line} imports {name}"
        if layer == "kernels":
            if not name.startswith(".") and name.split(".")[0] not in KERNELS_MAY | STANDARD:
                faults.append(f"{where}: kernels know only torch, triton, numpy and cupy")
        elif name.startswith("fastcpc."):
            target = name.split(".")[1]
            if target != "kernels" and layer in ORDER and ORDER.index(target) > ORDER.index(layer):
                faults.append(f"{where}: {target} lies to the right of {layer}")
        elif name.startswith(".") or name.split(".")[0] == "kernels":
            faults.append(f"{where}: one spelling only, fastcpc...")
    for function in ast.walk(tree):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            faults += [
                f"{path.relative_to(ROOT)}:{line} imports {name} inside {function.name}"
                for line, name in imports_of(function)
                if name.startswith((".", "fastcpc"))
            ]
    return faults


STANDARD = set(__import__("sys").stdlib_module_names)


def test_imports_point_one_way() -> None:
    faults = [fault for path in modules() for fault in faults_of(path, path.read_text(encoding="utf-8"))]
    assert not faults, "\n".join(faults)


def test_heavy_libraries_have_one_door() -> None:
    doors: dict[str, set[str]] = {name: set() for name in ONE_DOOR}
    for path in modules():
        for _, name in imports_of(ast.parse(path.read_text(encoding="utf-8"))):
            if name.split(".")[0] in ONE_DOOR:
                doors[name.split(".")[0]].add(str(path.relative_to(ROOT)))
    assert all(len(files) <= 1 for files in doors.values()), doors


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("fastcpc/data/x.py", "from fastcpc.engine.start import train"),
        ("fastcpc/config/x.py", "import fastcpc.data.seeds"),
        ("fastcpc/engine/x.py", "def f():\n    from fastcpc.data import seeds"),
        ("fastcpc/engine/x.py", "from .optim import build_sgd"),
        ("fastcpc/engine/x.py", "import kernels"),
        ("fastcpc/engine/x.py", "from fastcpc.report.run import read_run"),
        ("fastcpc/report/x.py", "from fastcpc.cli.failure import report"),
        ("kernels/x.py", "import sklearn"),
        ("kernels/x.py", "from fastcpc.errors import InputError"),
    ],
)
def test_a_wrong_import_is_found(file: str, source: str) -> None:
    assert faults_of(ROOT / file, source)


def test_the_walk_sees_the_project() -> None:
    names = {str(path.relative_to(ROOT)) for path in modules()}
    assert {"fastcpc/engine/trainer.py", "kernels/prototype_loss.py", "fastcpc/errors.py"} <= names
    assert not any(name.startswith("fastcpc/kernels") for name in names)
