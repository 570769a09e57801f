"""Config files and overrides as flat lists of entries: a dotted key, the text of its value, and its origin.

Only the structure of YAML is used, in two levels: tags build no values, aliases are not expanded. The type of the
setting decides later what a text means (load.py).
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from fastcpc.config.constraints import did_you_mean, shown
from fastcpc.config.packaged import nearest_name

COMMAND_LINE = "command line"
LARGEST_FILE = 100_000
BASE = "base"
_NULLS = ("", "~", "null", "Null", "NULL")
_SCALAR_TAGS = tuple(
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp", "value")
)


@dataclass(frozen=True)
class Entry:
    """One setting as the user wrote it, or the name of a section that has settings below it.

    origin: file and line, or COMMAND_LINE; quoted: the text was in quotes, so it is never a number or null.
    """

    origin: str
    key: str
    text: str
    quoted: bool = False
    is_section: bool = False

    @property
    def is_null(self) -> bool:
        """Whether YAML reads the text as null."""
        return not (self.quoted or self.is_section) and self.text in _NULLS


@dataclass
class Source:
    """The content of a file or of the command line: entries in order, errors (one line each) and their keys."""

    entries: list[Entry] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    invalid_keys: set[str] = field(default_factory=set)
    base: Entry | None = None


def read_overrides(overrides: Sequence[str]) -> Source:
    """Entries of "key=value" arguments. The value is the text after the "=", without a pair of quotes around it."""
    source = Source()
    for override in overrides:
        key, equals, text = override.partition("=")
        key, text = key.strip(), text.strip()
        if not equals:
            source.problems.append(f"{COMMAND_LINE}: {shown(override)}: must be key=value, such as train.lr=0.01")
            source.invalid_keys.add(key)
        elif not key:
            source.problems.append(f"{COMMAND_LINE}: {shown(override)}: no key before the '='; must be key=value")
        elif key == BASE:
            source.problems.append(
                f"{COMMAND_LINE}: base={shown(text)}: works only inside a file; use --config {shown(text)}"
            )
        else:
            quoted = len(text) >= 2 and text[0] == text[-1] and text[0] in "'\""
            # An empty value is an empty text, not null: run.dir= means the empty text.
            source.entries.append(Entry(COMMAND_LINE, key, text[1:-1] if quoted else text, quoted or not text))
    return source


def read_file(path: Path) -> Source:
    """Entries of a YAML file, which may be empty."""
    source = Source()
    name = path_text(path)
    text = _read_text(path, source)
    if text is None:
        return source
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        source.problems.append(f"{name}{line}: not valid YAML: {' '.join((error.problem or error.context).split())}")
    except yaml.YAMLError as error:
        source.problems.append(f"{name}: not valid YAML: {str(error).splitlines()[0]}")
    except RecursionError:
        source.problems.append(f"{name}: nested too deeply; a config has two levels, sections and settings")
    else:
        if root is not None:
            _read_sections(name, root, source)
    return source


def path_text(path: Path | str) -> str:
    """A path on one line, also where its name has a line break."""
    return str(path) if str(path).isprintable() else repr(str(path))


def _read_text(path: Path, source: Source) -> str | None:
    name = path_text(path)
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        beside = sorted(item.stem for item in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        near = [f"{stem}.yaml" for stem in difflib.get_close_matches(path.stem, beside, n=1)] or nearest_name(path)
        what = "no such file" if path.is_absolute() else "no such file or packaged config"
        source.problems.append(f"{name}: {what}{did_you_mean(near)}")
    except IsADirectoryError:
        source.problems.append(f"{name}: is a folder, not a config file")
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        source.problems.append(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}")
    else:
        if len(data) > LARGEST_FILE:
            source.problems.append(f"{name}: more than {LARGEST_FILE:,} bytes; this is not a config file")
            return None
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            source.problems.append(f"{name}:{line}: not UTF-8 text; save the file as UTF-8")
    return None


def _read_sections(file: str, root: yaml.Node, source: Source) -> None:
    if isinstance(root, yaml.ScalarNode) and root.style is None and root.value in _NULLS:
        return  # an empty document, such as "---"
    if not isinstance(root, yaml.MappingNode) or not _has_plain_tag(root):
        source.problems.append(f"{_origin(file, root)}: {_form(root)} at the top; must be sections, such as 'train:'")
        return
    for key, node in _items(file, root, "", source):
        section, dot, inside = key.value.partition(".")
        if dot:
            where = f"in a file, write {shown(inside + ':')} below {shown(section + ':')}"
            source.problems.append(f"{_origin(file, key)}: {shown(key.value)}: {where}")
            source.invalid_keys.add(key.value)
        elif isinstance(node, yaml.MappingNode) and _has_plain_tag(node):
            source.entries.append(Entry(_origin(file, key), key.value, "a mapping", is_section=True))
            for inner, leaf in _items(file, node, f"{key.value}.", source):
                _read_scalar(file, inner, f"{key.value}.{inner.value}", leaf, source)
        else:
            _read_scalar(file, key, key.value, node, source)


def _items(
    file: str, mapping: yaml.MappingNode, prefix: str, source: Source
) -> "list[tuple[yaml.ScalarNode, yaml.Node]]":
    """Keys and values of a mapping, without keys that are not plain text and without repeated keys."""
    items: list[tuple[yaml.ScalarNode, yaml.Node]] = []
    lines: dict[str, int] = {}
    for key, node in mapping.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag not in _SCALAR_TAGS:
            merging = isinstance(key, yaml.ScalarNode) and key.tag.endswith(":merge")
            what = "<<: is not supported; use base:" if merging else f"a key is {_form(key)}; must be a name"
            source.problems.append(f"{_origin(file, key)}: {f'in {prefix[:-1]}: ' if prefix else ''}{what}")
        elif key.value in lines:
            name = f"{prefix}{key.value}"
            source.problems.append(
                f"{_origin(file, key)}: {shown(name)}: given twice, first in line {lines[key.value]}; keep one"
            )
            source.invalid_keys.add(name)
        else:
            lines[key.value] = key.start_mark.line + 1
            items.append((key, node))
    return items


def _read_scalar(file: str, key: yaml.ScalarNode, name: str, node: yaml.Node, source: Source) -> None:
    origin = _origin(file, key)
    if not isinstance(node, yaml.ScalarNode) or not _has_plain_tag(node):
        source.problems.append(f"{origin}: {shown(name)}: got {_form(node)}; must be one value")
        source.invalid_keys.add(name)
        return
    entry = Entry(origin, name, node.value, quoted=node.style is not None)
    if name == BASE:
        source.base = entry
    else:
        source.entries.append(entry)


def _has_plain_tag(node: yaml.Node) -> bool:
    return node.tag in (*_SCALAR_TAGS, "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


def _form(node: yaml.Node) -> str:
    """The kind of a node in words."""
    if not _has_plain_tag(node):
        return f"the tag {shown(node.tag.replace('tag:yaml.org,2002:', '!!'))}, and tags are not supported"
    if isinstance(node, yaml.ScalarNode):
        return f"the text {shown(node.value)}"
    return "a mapping" if isinstance(node, yaml.MappingNode) else "a list"


def _origin(file: str, node: yaml.Node) -> str:
    return f"{file}:{node.start_mark.line + 1}"
