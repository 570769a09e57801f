"""The documentation: it builds, needs no network, and what it says of commands, settings, code and messages is so."""

import ast
import contextlib
import html
import io
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from fastcpc.cli import clean, eval, export, predict, prepare, report, reproduce, train
from fastcpc.cli.embeddings import audit, embed
from fastcpc.config.load import settings
from fastcpc.errors import InputError

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
COMMANDS = {
    command.PROGRAM: command.main
    for command in (train, eval, prepare, report, reproduce, clean, export, predict, embed, audit)
}
KEYS = {key for key, _, _ in settings()}
SOURCES = [path for folder in ("fastcpc", "kernels") for path in (ROOT / folder).rglob("*.py")]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built pages; --strict turns each broken link and anchor into a failure (not with --quiet)."""
    target = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(target)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def test_pages_are_built_and_fetch_nothing(site: Path) -> None:
    names = {path.stem for path in PAGES} | {"settings"}
    assert {path.stem for path in site.glob("*.html")} == names | {"404"}
    for page in site.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|link|img|iframe)[^>]*?(?:src|href)=\"?(//|https?://)[^\s>]*", text)
        # the address of the page itself and of MkDocs in the footer are links, and load nothing
        assert not loaded, (page.name, loaded)


def test_settings_page_has_every_setting(site: Path) -> None:
    text = html.unescape((site / "settings.html").read_text(encoding="utf-8"))
    for key, field, _ in settings():
        assert f"<code>{key}</code>" in text, key
        assert field.metadata["meaning"].split(";")[0] in text, key


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.stem)
def test_named_settings_exist(page: Path) -> None:
    sections = {key.partition(".")[0] for key in KEYS if "." in key}
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(rf"(?<![\w./-])((?:{'|'.join(sections)})\.[a-z_0-9]+)(?![\w./(-])", text))
    files = {"train.log", "model.onnx", "model.safetensors", "data.json"}
    assert named - files <= KEYS, named - files - KEYS


@cache
def options_of(program: str) -> set[str]:
    """The options that a command's --help names."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert COMMANDS[program](["--help"]) == 0
    return set(re.findall(r"--[a-z][a-z-]*", printed.getvalue()))


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.stem)
def test_commands_and_their_options_exist(page: Path) -> None:
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    for line in "\n".join(blocks).splitlines():
        words = line.split("#")[0].replace(".venv/bin/", "").split()
        if words and words[0].startswith("fastcpc-"):
            assert words[0] in COMMANDS, line
            unknown = {word for word in words if word.startswith("--")} - options_of(words[0])
            assert not unknown, (line, unknown)
            for word in words:
                if re.fullmatch(r"[a-z_.]+=.*", word):
                    assert word.partition("=")[0] in KEYS, line
                if word.startswith("configs/"):
                    assert (ROOT / word).is_file(), line


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "README.md", ROOT / "bench" / "README.md"], ids=lambda page: str(page.relative_to(ROOT))
)
def test_make_targets_and_benches_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.M)) <= targets
    for name in re.findall(r"python (bench/[\w/]+\.py)", text):
        assert (ROOT / name).is_file(), name


def test_code_named_by_the_method_exists() -> None:
    named = re.findall(r"`((?:fastcpc|kernels)/[\w/]+\.py)(?::(\w+))?`", (ROOT / "docs" / "method.md").read_text())
    assert len(named) > 15
    for file, name in named:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        defined = {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        assert not name or name in defined, f"{file}:{name}"


def texts_of(tree: ast.AST) -> list[str]:
    """Every text of a module; what is filled in at run time is a NUL character."""
    texts = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "\0" for part in node.values]
            texts.append("".join(str(part) for part in parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.append(re.sub(r"%[sdgr]", "\0", node.value))
    return texts


MESSAGES = re.findall(r"^\| `(.+?)` \|", (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8"), re.M)


@cache
def all_texts() -> list[str]:
    return [text for path in SOURCES for text in texts_of(ast.parse(path.read_text(encoding="utf-8")))]


def says(message: str, text: str) -> bool:
    """Whether a text of the code, with anything filled in, can be this message, or its end (after a file's name)."""
    written = "".join(".*" if part == "..." else re.escape(part) for part in re.split(r"(\.\.\.)", message))
    filled = text.replace("\0", "...")
    return re.fullmatch(written, filled) is not None or re.fullmatch(written, f"...: {filled}") is not None


@pytest.mark.parametrize("message", MESSAGES)
def test_explained_messages_exist(message: str) -> None:
    assert len(message.replace("...", "").strip()) > 15
    assert any(says(message, text) for text in all_texts()), message


def test_unknown_message_is_found() -> None:
    assert len(MESSAGES) > 35
    assert not any(says("run.dir: ... is full of eels", text) for text in all_texts())
    assert says("a ... b ... c", "a \0 b \0 c") and not says("a ... b", "a \0 c")


def anchors_of(page: Path) -> set[str]:
    """The anchors that a page's headings get."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    words = (re.sub(r"[^\w\- ]", "", title.lower()) for title in re.findall(r"^#+ (.+)$", text, re.M))
    return {title.strip().replace(" ", "-") for title in words}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "bench" / "README.md"], ids=lambda page: page.stem)
def test_links_have_targets(page: Path) -> None:
    """Files and headings; addresses on the network are only read, so that the tests need none."""
    for link in re.findall(r"\]\(([^)\s]*)\)", page.read_text(encoding="utf-8")):
        if "://" in link:
            address = urlsplit(link)
            assert address.scheme == "https" and re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", address.netloc), link
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if name == "settings.md":  # made from the code when the pages are built, where its own test looks at it
            continue
        assert target.exists(), link
        assert not anchor or anchor in anchors_of(target), link


@pytest.mark.parametrize("program", COMMANDS)
def test_every_command_is_installed_and_documented(program: str) -> None:
    module = COMMANDS[program].__module__
    assert f'"{program} = {module}:main"' in (ROOT / "setup.py").read_text()
    assert any(program in page.read_text(encoding="utf-8") for page in PAGES)
    assert COMMANDS[program](["--no-such-option"]) == InputError.exit_code
