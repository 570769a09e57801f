"""Read files and overrides into a checked Config, and write a Config as YAML.

Order: defaults < ``base:`` files < files as given < key=value overrides. One InputError reports all errors, one line
each.
"""

import dataclasses
import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml  # type: ignore[import-untyped]

from fastcpc.config.constraints import choices_of, did_you_mean, field_types, shown, type_words, value_problem
from fastcpc.config.packaged import find_config
from fastcpc.config.schema import Config
from fastcpc.config.sources import Entry, Source, path_text, read_file, read_overrides
from fastcpc.config.validation import cross_setting_problems
from fastcpc.errors import InputError

_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def load_config(files: Sequence[Path], overrides: Sequence[str]) -> Config:
    """Merge files and overrides into a checked Config.

    files: YAML, or names of packaged configs; later ones win. A top-level ``base:`` names a file that is read before
    all of them; its path is relative to the file that names it. A base has no base.
    overrides: "section.key=value", applied last, in order. Raises InputError with one line per error.
    """
    sources = [*_read_files(files), read_overrides(overrides)]
    merge = _Merge()
    for source in sources:
        merge.add(source)
    merge.cross_check()
    if merge.problems:
        raise InputError("\n".join(merge.problems))
    return merge.config()


def to_yaml(config: Config) -> str:
    """The config as YAML in the order of the schema; loading it gives an equal Config."""
    text: str = yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True)
    return text


def read_config(folder: Path) -> Config:
    """The config in the folder of a run; InputError where there is none."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the folder of a run")
    if not (folder / "config.yaml").is_file():
        raise InputError(f"{folder} is not a run's folder: it has no config.yaml")
    return load_config([folder / "config.yaml"], [])


def run_folder(config: Config) -> Path:
    """The folder of a run: run.dir, or runs/NAME where run.dir is empty."""
    return Path(config.run.dir).expanduser() if config.run.dir else Path("runs") / config.run.name


def settings() -> Iterator[tuple[str, "dataclasses.Field[Any]", Any]]:
    """Dotted key, field and type of every setting, in the order of the schema."""
    for section in dataclasses.fields(Config):
        kind = field_types(Config)[section.name]
        if dataclasses.is_dataclass(kind):
            for item in dataclasses.fields(kind):
                yield f"{section.name}.{item.name}", item, field_types(cast(type, kind))[item.name]
        else:
            yield section.name, section, kind


_SETTINGS: Mapping[str, tuple["dataclasses.Field[Any]", Any]] = {key: (item, kind) for key, item, kind in settings()}
_SECTIONS = tuple(dict.fromkeys(key.partition(".")[0] for key in _SETTINGS if "." in key))


class _Merge:
    """The values of all sources read so far, and the errors in them."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.problems: list[str] = []
        self.invalid_keys: set[str] = set()
        self.origins: dict[str, str] = {}

    def add(self, source: Source) -> None:
        """Apply the entries of a source over the values so far."""
        self.problems += source.problems
        self.invalid_keys |= source.invalid_keys
        unknown_sections: tuple[str, ...] = ()
        for entry in source.entries:
            if entry.key.startswith(unknown_sections):
                continue  # the error of the section is enough
            if entry.key in _SECTIONS and (entry.is_section or (entry.text == "" and entry.is_null)):
                continue  # a section without settings, such as one whose lines are all comments
            problem = self._problem(entry)
            if problem is None:
                self.origins[entry.key] = entry.origin
                continue
            if entry.is_section:
                unknown_sections += (f"{entry.key}.",)
            self.problems.append(f"{entry.origin}: {problem}")
            self.invalid_keys |= {entry.key, *nearest_keys(entry.key)}

    def config(self) -> Config:
        """The config of all values that were accepted."""
        sections = {
            section: field_types(Config)[section](**{name: self.values[f"{section}.{name}"] for name in names})
            for section in _SECTIONS
            if (names := [name for name in _names(section) if f"{section}.{name}" in self.values])
        }
        return Config(**sections, **{key: value for key, value in self.values.items() if "." not in key})

    def cross_check(self) -> None:
        """Add the clashes between settings, except those that a wrong setting may only seem to cause."""
        for problem in cross_setting_problems(self.config()):
            if not any(_concerns(invalid, key) for invalid in self.invalid_keys for key in problem.keys):
                origin = next((self.origins[key] for key in problem.keys if key in self.origins), "")
                self.problems.append(f"{origin}: {problem.message}" if origin else problem.message)

    def _problem(self, entry: Entry) -> str | None:
        if entry.key in _SECTIONS:
            got = "nothing" if entry.is_null else shown(entry.text)
            return f"{entry.key}: got {got}; it is a section with the settings {', '.join(_names(entry.key))}"
        if entry.key not in _SETTINGS:
            return _unknown(entry.key)
        field, kind = _SETTINGS[entry.key]
        choices = choices_of(field, kind)
        if entry.is_null:
            hint = _empty_hint(choices, kind)
            return f"{entry.key}: got nothing (null); must be {type_words(field, kind)}{hint}"
        try:
            value = _value(entry, choices, kind)
        except ValueError:
            hint = _value_hint(entry, choices)
            return f"{entry.key}={shown(entry.text)}: must be {type_words(field, kind)}{hint}"
        problem = value_problem(entry.key, field, kind, value)
        if problem is None:
            self.values[entry.key] = value
        return problem


def _value(entry: Entry, choices: tuple[str, ...], kind: Any) -> Any:
    """An entry's text as a value of its setting's type; ValueError where it is not one."""
    if choices:
        # YAML has other spellings of false, for compile
        text = "false" if not entry.quoted and entry.text in ("False", "FALSE") else entry.text
        if text not in choices:
            raise ValueError
        return text
    if kind is str:
        return entry.text
    if entry.quoted:
        raise ValueError
    if kind is bool:
        if entry.text.lower() not in _BOOLEANS:
            raise ValueError
        return _BOOLEANS[entry.text.lower()]
    return kind(entry.text)


def _value_hint(entry: Entry, choices: tuple[str, ...]) -> str:
    """The end of the message for a text that is not a value of its setting's type."""
    if choices:
        return did_you_mean(difflib.get_close_matches(entry.text.lower(), choices, n=1))
    return ", without quotes" if entry.quoted and entry.text else ""


def nearest_keys(key: str) -> list[str]:
    """At most two settings that a wrong key may mean, the likeliest first."""
    name = key.rpartition(".")[2]
    moved = [known for known in _SETTINGS if known.rpartition(".")[2] == name]
    close = difflib.get_close_matches(key, [*_SETTINGS, *_SECTIONS], n=1, cutoff=0.75)
    if close and close[0] in moved:
        return close  # the section is nearly right as well
    alike = [known for known in _SETTINGS if difflib.get_close_matches(name, [known.rpartition(".")[2]], cutoff=0.75)]
    return list(dict.fromkeys([*moved, *close] or alike))[:2]


def _unknown(key: str) -> str:
    section, _, name = key.partition(".")
    hint = did_you_mean(nearest_keys(key))
    if hint:
        return f"{shown(key)}: no such setting{hint}"
    known = (
        f"{section} has {', '.join(_names(section))}"
        if section in _SECTIONS and name
        else f"there are {', '.join(_SECTIONS)}"
    )
    return f"{shown(key)}: no such setting; {known}"


def _empty_hint(choices: tuple[str, ...], kind: Any) -> str:
    if kind is str and not choices:
        return "; for an empty one write ''"
    return "; write none" if "none" in choices else ""


def _names(section: str) -> list[str]:
    return [key.partition(".")[2] for key in _SETTINGS if key.startswith(f"{section}.")]


def _concerns(invalid: str, key: str) -> bool:
    return invalid == key or key.startswith(f"{invalid}.")


def _read_files(files: Sequence[Path]) -> list[Source]:
    """The sources of the files, all bases first, in order."""
    bases, given = [], []
    for path in map(find_config, files):
        source = read_file(path)
        given.append(source)
        if source.base is not None:
            bases.append(_read_base(path, source.base))
    return [*bases, *given]


def _read_base(path: Path, named: Entry) -> Source:
    if named.is_null or not named.text:
        return Source(problems=[f"{named.origin}: base: got nothing; must be the path of a file"])
    base = path.parent / named.text
    if not os.path.isfile(base):  # unlike Path.is_file, False where the path cannot be checked
        what = "is a folder" if os.path.isdir(base) else "no such file"
        return Source(problems=[f"{named.origin}: base={shown(named.text)}: {what}: {path_text(base)}"])
    source = read_file(base)
    if source.base is not None:
        source.problems.append(
            f"{source.base.origin}: base={shown(source.base.text)}: a base cannot have a base itself"
        )
    return source
