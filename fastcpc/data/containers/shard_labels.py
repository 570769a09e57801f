"""Where the labels of shards are: a .cls or .txt member per sample, or a key of its .json member."""

import json
from typing import Any, Protocol

from fastcpc.data.containers.handles import ContainerFile, read_range
from fastcpc.data.containers.shard_index import CLS, JSON, PEEKED, TXT, split_member
from fastcpc.data.containers.tar_reader import AGAIN, read_members
from fastcpc.data.datasets.listing import shorten
from fastcpc.data.labels.columns import LABEL, TRUSTED, find_column
from fastcpc.data.labels.label_values import text_of
from fastcpc.errors import InputError

LONGEST_LABEL = 1 << 20  # bytes of a member with a label


class LabelSource(Protocol):
    """Reads the label of a sample from one of its members. ending: of these members. missing: what to do if absent."""

    ending: str
    missing: str

    def texts(self, content: bytes) -> tuple[str, str]:
        """Label and true label, "" where there is none. ValueError with the reason where the member is unreadable."""
        ...


class TextMember:
    """A member whose whole content is the label: .cls or .txt."""

    def __init__(self, ending: str) -> None:
        self.ending = ending
        self.missing = f"give each image a .{ending} member, or list the labelled images in data.list"

    def texts(self, content: bytes) -> tuple[str, str]:
        """See ``LabelSource``."""
        try:
            return content.decode("utf-8-sig").strip(), ""
        except UnicodeDecodeError:
            raise ValueError(f"is not UTF-8 text; {AGAIN}") from None


class JsonKey:
    """A key of a .json member, and one for true labels or ""."""

    ending = JSON

    def __init__(self, key: str, trusted_key: str) -> None:
        self._key, self._trusted_key = key, trusted_key
        self.missing = f"give each .json member the key {key!r}, or list the labelled images in data.list"

    def texts(self, content: bytes) -> tuple[str, str]:
        """See ``LabelSource``."""
        found = parsed_json(content)
        trusted = text_of(found.get(self._trusted_key)) if self._trusted_key else ""
        return text_of(found.get(self._key)), trusted


def parsed_json(content: bytes) -> dict[str, Any]:
    """The object in a .json member. ValueError with the reason."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON that can be read ({shorten(str(error))}); {AGAIN}") from None
    if not isinstance(found, dict):
        raise ValueError(f"is a JSON {type(found).__name__}, not an object with the label; {AGAIN}")
    return found


def choose_source(file: ContainerFile, label_key: str) -> LabelSource:
    """The source of labels that data.label_key names, or else that the first members of a shard show.

    .cls comes before .json, and .json before .txt, which may hold captions. InputError where there is none.
    """
    if label_key.lower().lstrip(".") in (CLS, TXT):
        return TextMember(label_key.lower().lstrip("."))
    endings: set[str] = set()
    keys: list[str] | None = None
    for number, member in enumerate(read_members(file)):
        ending = split_member(member.name)[1]
        endings.add(ending)
        if ending == JSON and keys is None and member.size <= LONGEST_LABEL:
            try:
                keys = list(parsed_json(read_range(file, member.offset, member.size)))
            except ValueError as error:
                raise InputError(f"{file.path}/{member.name}: {error}") from None
            where = f"{file.path}/{member.name}"
        if number >= PEEKED or (CLS in endings and not label_key):
            break
    if CLS in endings and not label_key:
        return TextMember(CLS)
    if keys is None:
        if label_key:
            raise InputError(f"{file.path}: data.label_key={label_key}: no .json members; give cls or txt, or no key")
        if TXT in endings:
            return TextMember(TXT)
        raise InputError(
            f"{file.path}: no labels (no .cls, .json or .txt members); add them, or list the images in data.list"
        )
    return _json_key(where, keys, label_key, has_text=TXT in endings)


def _json_key(where: str, keys: list[str], label_key: str, *, has_text: bool) -> JsonKey:
    key = label_key
    if not key:
        try:
            place = find_column(keys, LABEL, where)
        except InputError as error:
            raise InputError(f"{str(error).partition(';')[0]}; name one in data.label_key") from None
        key = "" if place is None else keys[place]
    if key not in keys:
        asked = f"no key {key!r}" if key else "no key label"
        text = ", or data.label_key=txt if the .txt members are labels" if has_text else ""
        raise InputError(
            f"{where}: {asked} ({shorten(', '.join(keys)) or 'no keys'}); name the key in data.label_key{text}"
        )
    trusted = find_column(keys, TRUSTED, where)
    return JsonKey(key, "" if trusted is None else keys[trusted])
