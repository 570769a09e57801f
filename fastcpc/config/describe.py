"""The settings in words, for ``--help`` and for docs/settings.md."""

import dataclasses
import textwrap
from typing import Any, cast

from fastcpc.config.constraints import field_types, shown, type_words
from fastcpc.config.load import settings
from fastcpc.config.schema import Config

WIDTH = 110


def describe() -> str:
    """Every setting by section: key, default, type and range, meaning, source of the default."""
    lines = ["settings (key=value on the command line, or key: value under the section in a file):"]
    section = None
    for key, field, kind in settings():
        group = key.partition(".")[0] if "." in key else ""
        if group != section:
            lines.append("")
            section = group
        lines.append(f"  {key} = {default_text(field)}    {type_words(field, kind)}")
        text = f"{field.metadata['meaning']} [{field.metadata['source']}]"
        lines += textwrap.wrap(text, WIDTH, initial_indent="      ", subsequent_indent="      ", break_on_hyphens=False)
    return "\n".join(lines)


def describe_page() -> str:
    """The same as Markdown: a heading and a table per section."""
    lines = [
        "# Every setting",
        "",
        "This page is generated from `fastcpc/config/schema.py`. Give a setting as `key=value` on the command line, or "
        "under its section in a YAML file. Order: defaults < `base:` of a file < files in order < `key=value`. Unknown "
        "keys, wrong types and values out of range are errors.",
    ]
    section = None
    for key, field, kind in settings():
        group = key.partition(".")[0] if "." in key else ""
        if group != section:
            lines += ["", f"## {group or 'Machine'}", "", _about(group), ""]
            lines += ["| setting | default | values | meaning | source |", "|---|---|---|---|---|"]
            section = group
        cells = (
            f"`{key}`", f"`{default_text(field) or repr('')}`", type_words(field, kind), field.metadata["meaning"],
            field.metadata["source"],
        )  # fmt: skip
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def default_text(field: "dataclasses.Field[Any]") -> str:
    """The default of a setting as a file would have it."""
    return str(field.default).lower() if isinstance(field.default, bool) else shown(field.default)


def _about(group: str) -> str:
    kind = field_types(Config)[group] if group else None
    return (cast(type, kind).__doc__ or "").splitlines()[0] if kind else "Device, number formats and compilation."
