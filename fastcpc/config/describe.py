"""The settings in words, for ``--help``."""

import textwrap

from fastcpc.config.load import settings
from fastcpc.config.ranges import shown, type_words

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
        default = str(field.default).lower() if isinstance(field.default, bool) else shown(field.default)
        lines.append(f"  {key} = {default}    {type_words(field, kind)}")
        text = f"{field.metadata['meaning']} [{field.metadata['source']}]"
        lines += textwrap.wrap(text, WIDTH, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)
