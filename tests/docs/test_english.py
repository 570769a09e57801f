"""The pages use plain English: none of the words that the glossary replaces, and no sentence that is too long.

``problems_of_page`` reads Markdown, ``problems_of_python`` the docstrings, comments, function names and, outside the
tests, the messages of a module. Code, addresses of links and HTML comments are skipped. Table cells may hold long
sentences, but no word of the glossary's list.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "bench" / "README.md"]
CHECKED_CODE = ("fastcpc", "kernels", "bench", "tests")
MODULES = [
    path
    for folder in CHECKED_CODE
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "fastcpc/kernels" not in path.as_posix()  # a symbolic link to kernels/
]
MAX_WORDS = 25
MAX_WORDS_CODE = 30
# technical uses of a listed word; a hyphen counts as a letter, so `stand-alone` is allowed
ALLOWED = re.compile(
    r"\b(\d+|low|high|random) bits\b|\bbits per\b|\b(page|segmentation) fault\b|\bthe least recently used\b"
    r"|\b(integer of \w+|mantissa) bits\b|\bstands? for\b|\bthere is none\b|(?-i:\bis None\b)",
    re.I,
)
DIRECTIVE = re.compile(r"#\s*(fmt|noqa|type|pragma|ruff|mypy)\b")
HEADING = "## Words to avoid"


@cache
def words_to_avoid() -> dict[str, str]:
    """Each listed word or phrase and what to write instead, from the glossary's table."""
    section = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").split(HEADING)[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.+) \| (.+?) \|$", section, re.M)
    return {word: instead for cell, instead in rows for word in re.findall(r"`([^`]+)`", cell)}


@cache
def pattern_to_avoid() -> re.Pattern[str]:
    """Matches each word or phrase of ``words_to_avoid``."""
    words = (r"\s+".join(map(re.escape, word.split())) for word in words_to_avoid())
    return re.compile(r"(?<![\w-])(?:" + "|".join(words) + r")(?![\w-])", re.I)


def plain(text: str) -> str:
    """Text without markup: code is the word CODE, a link or an image its text."""
    text = re.sub(r"(`+)[^`]+\1", "CODE", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"\*+", "", text)


def sentences(text: str) -> list[str]:
    """A paragraph's sentences: each ends with . ! or ? before a space."""
    return re.split(r"(?<=[.!?])[\"')\]]*\s+", text)


def paragraphs_of_page(markdown: str) -> Iterator[tuple[str, bool]]:
    """(text, whether it is a row of a table) of each paragraph, list item, heading and row."""
    markdown = re.sub(r"^( *)```.*?^\1```", "", markdown, flags=re.S | re.M)
    markdown = re.sub(r"<!--.*?-->", "", markdown, flags=re.S)
    current: list[str] = []
    for line in [*(line.strip() for line in markdown.splitlines()), ""]:
        is_row, is_heading = line.startswith("|"), line.startswith("#")
        if current and (not line or is_row or is_heading or re.match(r"([-*]|\d+\.|!!!) ", line)):
            yield " ".join(current), False
            current = []
        if is_row or is_heading:
            yield line, is_row
        elif line:
            current.append(re.sub(r"^([-*]|\d+\.|!!! \w+) ", "", line))


def paragraphs_of_python(source: str) -> Iterator[tuple[str, bool]]:
    """The same of a module's docstrings, without their indented examples, and of its comments."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, documented):
            margin = 0 if isinstance(node, ast.Module) else node.col_offset + 4
            yield from paragraphs_of_page(without_examples(ast.get_docstring(node, clean=False) or "", margin))
    block: list[str] = []
    last = -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT or DIRECTIVE.match(token.string):
            continue
        row, is_whole_line = token.start[0], token.line.lstrip().startswith("#")
        if block and (row != last + 1 or not is_whole_line):
            yield " ".join(block), False
            block = []
        block.append(token.string.lstrip("#! "))
        last = row if is_whole_line else -1
    if block:
        yield " ".join(block), False


def without_examples(docstring: str, margin: int) -> str:
    """A docstring without its indented lines, except those that continue a list item, and without its ``>>>`` lines."""
    first, *rest = docstring.splitlines() or [""]
    kept, in_item = [first], False
    for line in rest:
        is_indented = line.startswith(" " * (margin + 2)) or line.lstrip().startswith(">>>")
        if not is_indented:
            in_item = line.lstrip().startswith(("- ", "* "))
        kept.append("" if is_indented and not in_item else line)
    return "\n".join(kept)


def problems(paragraphs: Iterable[tuple[str, bool]], max_words: int) -> Iterator[str]:
    """A line for each word to avoid and each long sentence."""
    for paragraph, is_row in paragraphs:
        text = plain(paragraph)
        for found in sorted(set(pattern_to_avoid().findall(ALLOWED.sub("", text)))):
            word = " ".join(found.lower().split())
            yield f"{word!r} (write: {words_to_avoid()[word]}) in: {text}"
        for sentence in [] if is_row else sentences(text):
            length = sum(any(letter.isalnum() for letter in word) for word in sentence.split())
            if length > max_words:
                yield f"{length} words, at most {max_words}: {sentence}"


def problems_of_page(text: str, max_words: int = MAX_WORDS) -> list[str]:
    return list(problems(paragraphs_of_page(text), max_words))


def problems_of_python(source: str, max_words: int = MAX_WORDS_CODE, *, has_messages: bool = True) -> list[str]:
    """has_messages: also check strings of several words. Those of tests quote settings, files and wrong input."""
    found = [*paragraphs_of_python(source), *((text, True) for text in function_names(source))]
    return list(problems([*found, *((text, True) for text in messages(source) if has_messages)], max_words))


def function_names(source: str) -> Iterator[str]:
    """The names of functions as words, without those of one word."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and "_" in node.name.strip("_"):
            yield node.name.replace("_", " ")


def messages(source: str) -> Iterator[str]:
    """The strings of several words that are no docstrings; a formatted value is the word CODE."""
    skipped = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr):
            skipped.add(node.value)  # a docstring
        elif isinstance(node, ast.JoinedStr):
            skipped.update(node.values)
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "CODE" for part in node.values)
        elif isinstance(node, ast.Constant) and node not in skipped and " " in str(node.value).strip():
            yield str(node.value)


@pytest.mark.parametrize("file", [*PAGES, *MODULES], ids=lambda file: str(file.relative_to(ROOT)))
def test_text_is_plain(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".py":
        found = problems_of_python(text, has_messages=not file.is_relative_to(ROOT / "tests"))
    else:
        found = problems_of_page(text)
    assert not found, "\n".join(found)


def test_list_of_words_is_read() -> None:
    assert {"anew", "go on", "held clean", "is none", "photo"} <= set(words_to_avoid())
    assert words_to_avoid()["photo"] == "image"


LONG = "One " + "more " * 30 + "word."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The run goes\non after a stop.", "'goes on'"),
        ("Mend it.", "'mend'"),
        ("| file | Photos of a [lie](x.md) |", "'lie'"),
        (LONG, "32 words"),
        ("- " + LONG, "32 words"),
        ("# A heading\n" + LONG, "32 words"),
    ],
)
def test_planted_problem_is_found_in_a_page(text: str, expected: str) -> None:
    assert any(expected in problem for problem in problems_of_page(f"Good text.\n\n{text}\n"))


def test_code_tables_and_technical_uses_are_allowed() -> None:
    assert not problems_of_page("```bash\nmend\n```\nA key of 256 bits, `go on`, stand-alone, [text](anew.md).\n")
    assert not problems_of_page(f"| {LONG} |\n\n<!-- anew -->\n")
    assert not problems_of_page("One sentence of five words. " * 10)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('"""Start anew."""\n', "'anew'"),
        (f'def f():\n    """{LONG}"""\n', "32 words"),
        ("x = 1  # the fault is here\n", "'fault'"),
        ("# it goes\n# on\nx = 1\n", "'goes on'"),
        ('"""Text.\n\n- an item that\n  goes on\n"""\n', "'goes on'"),
        ('raise RunError("the photo is gone")\n', "'photo'"),
        ('raise RunError(f"{name}: the photo is gone")\n', "'photo'"),
        ("def test_a_run_goes_on():\n    pass\n", "'goes on'"),
    ],
)
def test_planted_problem_is_found_in_a_module(source: str, expected: str) -> None:
    assert any(expected in problem for problem in problems_of_python(source))


def test_code_of_a_module_is_not_prose() -> None:
    source = '"""A module.\n\n    mend --anew\n"""\nfault = "photos"  # noqa: fault\nx = 1  # one\n\n# two\n'
    assert not problems_of_python(source)
    assert not problems_of_python("x = 1  # it goes\ny = 1  # on\nz = None  # x is None, y stands for 8 bits\n")
