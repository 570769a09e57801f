"""The settings in words: for ``--help``, and as a page of the documentation."""

import dataclasses
import textwrap
from typing import Any, cast

from fastcpc.config.constraints import field_types, shown, type_words
from fastcpc.config.load import settings
from fastcpc.config.schema import Config

WIDTH = 110


def describe() -> str:
    """Every setting by section: key, what it may hold, default, meaning, source of the default."""
    lines = ["settings (key=value on the command line, or key: value under the section in a file):"]
    section = None
    for key, field, kind in settings():
        group = key.partition(".")[0] if "." in key else ""
        if group != section:
            lines.append("")
            section = group
        lines.append(f"  {key} = {default_text(field)}    {type_words(field, kind)}")
        text = f"{field.metadata['meaning']} [{field.metadata['source']}]"
        lines += textwrap.wrap(text, WIDTH, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)


def describe_page() -> str:
    """The same as Markdown: a heading and a table a section."""
    lines = [
        "# Every setting",
        "",
        "This page is made from `fastcpc/config/schema.py`. Settings are given as `key=value` on the command line, or "
        "under their section in a YAML file. Order: defaults < `base:` of a file < files in order < `key=value`. A key "
        "that does not exist, a wrong type and a value out of range are refused.",
    ]
    section = None
    for key, field, kind in settings():
        group = key.partition(".")[0] if "." in key else ""
        if group != section:
            lines += ["", f"## {group or 'Machine'}", "", _about(group), ""]
            lines += ["| setting | default | holds | meaning | source |", "|---|---|---|---|---|"]
            section = group
        cells = (
            f"`{key}`", f"`{default_text(field) or repr('')}`", type_words(field, kind), field.metadata["meaning"],
            field.metadata["source"],
        )  # fmt: skip
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def default_text(field: "dataclasses.Field[Any]") -> str:
    """A setting's default as it is written in a file."""
    return str(field.default).lower() if isinstance(field.default, bool) else shown(field.default)


def _about(group: str) -> str:
    kind = field_types(Config)[group] if group else None
    return (cast(type, kind).__doc__ or "").splitlines()[0] if kind else "What to compute on, and in which numbers."
