"""The direction of imports: a module imports from its left only, and heavy libraries have one door each."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ORDER = ["errors", "arrays", "atomic_io", "config", "distributed", "data", "models", "cleaner"]
ORDER += ["auditing", "semisup", "engine", "report", "cli"]
KERNELS_MAY = {"torch", "triton", "numpy", "cupy", "__future__"}
ONE_DOOR = {"cupy", "nvidia"}
LATE_IMPORT = "fastcpc/cli/lazy.py"  # imports a module of fastcpc late: fastcpc.cli.actions
LATE_IMPORTS = (LATE_IMPORT, "fastcpc/__init__.py")  # the second imports the public functions late


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


def problems_of(path: Path, source: str) -> list[str]:
    """What a module imports that it must not."""
    inside, tree = path.relative_to(ROOT).parts, ast.parse(source)
    problems = []
    layer = inside[1].removesuffix(".py") if inside[0] == "fastcpc" else "kernels"
    for line, name in imports_of(tree):
        where = f"{path.relative_to(ROOT)}:{line} imports {name}"
        if layer == "kernels":
            if not name.startswith(".") and name.split(".")[0] not in KERNELS_MAY | STANDARD:
                problems.append(f"{where}: kernels know only torch, triton, numpy and cupy")
        elif name.startswith("fastcpc."):
            target = name.split(".")[1]
            if target != "kernels" and layer in ORDER and ORDER.index(target) > ORDER.index(layer):
                problems.append(f"{where}: {target} is to the right of {layer}")
        elif name.startswith(".") or name.split(".")[0] == "kernels":
            problems.append(f"{where}: one spelling only, fastcpc...")
    for function in ast.walk(tree):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            problems += [
                f"{path.relative_to(ROOT)}:{line} imports {name} inside {function.name}"
                for line, name in imports_of(function)
                if name.startswith((".", "fastcpc"))
            ]
    return problems + late_imports(path, tree)


def late_imports(path: Path, tree: ast.AST) -> list[str]:
    """Imports by a function: of a third-party library by its name only; of fastcpc in LATE_IMPORT only."""
    place, problems = path.relative_to(ROOT).as_posix(), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            text = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
            third_party = isinstance(text, str) and not text.startswith((".", "fastcpc"))
            if name in ("import_module", "__import__", "LazyLoader") and not third_party and place not in LATE_IMPORTS:
                problems.append(f"{place}:{node.lineno} imports late; only {LATE_IMPORTS} may import fastcpc so")
    actions = [line for line, name in imports_of(tree) if name.startswith("fastcpc.cli.actions")]
    return problems + [f"{place}:{line} imports the work of a command; load_action does" for line in actions]


STANDARD = set(__import__("sys").stdlib_module_names)


def test_imports_point_one_way() -> None:
    problems = [problem for path in modules() for problem in problems_of(path, path.read_text(encoding="utf-8"))]
    assert not problems, "\n".join(problems)


def test_heavy_libraries_have_one_importer() -> None:
    doors: dict[str, set[str]] = {name: set() for name in ONE_DOOR}
    for path in modules():
        for _, name in imports_of(ast.parse(path.read_text(encoding="utf-8"))):
            if name.split(".")[0] in ONE_DOOR:
                doors[name.split(".")[0]].add(str(path.relative_to(ROOT)))
    assert all(len(files) <= 1 for files in doors.values()), doors


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("fastcpc/data/x.py", "from fastcpc.engine.launch import train"),
        ("fastcpc/config/x.py", "import fastcpc.data.rng"),
        ("fastcpc/engine/x.py", "def f():\n    from fastcpc.data import seeds"),
        ("fastcpc/engine/x.py", "from .optim import build_sgd"),
        ("fastcpc/engine/x.py", "import kernels"),
        ("fastcpc/engine/x.py", "from fastcpc.report.results.run import read_run"),
        ("fastcpc/report/x.py", "from fastcpc.cli.exit_codes import report"),
        ("fastcpc/cli/x.py", "import importlib\nimportlib.import_module('fastcpc.engine.launch')"),
        ("fastcpc/engine/x.py", "import importlib\nimportlib.import_module(name)"),
        ("fastcpc/engine/x.py", "__import__('fastcpc.data')"),
        ("fastcpc/cli/x.py", "from fastcpc.cli.actions.train import run"),
        ("kernels/x.py", "import sklearn"),
        ("kernels/x.py", "from fastcpc.errors import InputError"),
    ],
)
def test_wrong_import_is_found(file: str, source: str) -> None:
    assert problems_of(ROOT / file, source)


def test_late_import_of_a_library_is_allowed() -> None:
    assert not problems_of(ROOT / "fastcpc/engine/x.py", "import importlib\nimportlib.import_module('wandb')")
    assert not problems_of(ROOT / LATE_IMPORT, "import importlib\nimportlib.import_module(f'fastcpc.cli.actions.{x}')")


def test_all_modules_are_checked() -> None:
    names = {str(path.relative_to(ROOT)) for path in modules()}
    assert {"fastcpc/engine/trainer.py", "kernels/prototype_loss.py", "fastcpc/errors.py"} <= names
    assert not any(name.startswith("fastcpc/kernels") for name in names)
