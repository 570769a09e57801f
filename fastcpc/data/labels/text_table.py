"""Reads text tables: the bytes of a CSV, TSV or plain list become rows of cells.

Encoding and delimiter are found from the content. Line numbers are computed only for messages, because a list can have
a million lines.
"""

import csv
import io
import re
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fastcpc.data.labels.columns import KNOWN, LABEL, PATH, SAMPLE, is_header, is_number, plain_name
from fastcpc.errors import InputError

BOMS = (
    (b"\xef\xbb\xbf", "utf-8-sig", ""),
    (b"\xff\xfe\x00\x00", "utf-32", "UTF-32"),
    (b"\x00\x00\xfe\xff", "utf-32", "UTF-32"),
    (b"\xff\xfe", "utf-16", "UTF-16"),
    (b"\xfe\xff", "utf-16", "UTF-16"),
)
DELIMITERS = {",": "comma-separated", ";": "semicolon-separated", "\t": "tab-separated"}
BLANK = " "  # "path label", split at the last blank
SAVE = "save the file as UTF-8 (in Excel: CSV UTF-8)"
SNIFFED = 1 << 16  # characters


@dataclass(frozen=True)
class TextTable:
    """Rows of cells, without the header. All rows have the length of the header, which is empty where there is none.

    line: line in the file of a row. note: how the file was read, where that is not its usual form.
    """

    header: list[str]
    rows: list[list[str]]
    line: Callable[[int], int]
    note: str


def decode_text(content: bytes, file: Path) -> tuple[str, str]:
    """The text of a file, and the name of its encoding where that is not UTF-8.

    Latin-1 is accepted only where single accented letters between plain ones are all that is not ASCII. Other encodings
    have letters in runs. Raises InputError with the line.
    """
    for bom, encoding, name in BOMS:
        if content.startswith(bom):
            try:
                return content.decode(encoding).removeprefix("\ufeff"), name
            except UnicodeDecodeError as error:
                raise _undecodable(content, error.start, file, name or "UTF-8") from None
    if b"\0" in content:
        return _without_bom(content, file), "UTF-16 without byte order mark"
    try:
        return content.decode("utf-8"), ""
    except UnicodeDecodeError as error:
        text = content.decode("latin-1")
        runs = re.findall(r"[^\x00-\x7f]+", text)
        if all(len(run) == 1 and "\xc0" <= run <= "\xff" and run not in "\xd7\xf7" for run in runs):
            return text, f"Latin-1 ({_word_with(text, runs[0])!r})"
        raise _undecodable(content, error.start, file, "UTF-8") from None


def _without_bom(content: bytes, file: Path) -> str:
    """UTF-16 text without a byte order mark. It has NUL bytes at every other position."""
    for start, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if not content[1 - start :: 2].count(0) and content[start::2].count(0) > len(content) // 4:
            try:
                text = content.decode(encoding)
            except UnicodeDecodeError:
                continue
            if "\0" not in text:
                return text
    line = len(re.split(rb"\r\n|\n|\r", content[: content.index(b"\0")]))
    raise InputError(f"{file}:{line}: not a text file (NUL bytes); {SAVE}")


def _undecodable(content: bytes, start: int, file: Path, encoding: str) -> InputError:
    line = len(re.split(rb"\r\n|\n|\r", content[:start]))
    return InputError(f"{file}:{line}: not text in {encoding} (byte {start}: 0x{content[start]:02x}); {SAVE}")


def _word_with(text: str, letter: str) -> str:
    place = text.index(letter)
    return re.split(r"[\s,;\"/\\]", text[:place])[-1] + re.split(r"[\s,;\"/\\]", text[place:])[0]


def read_text_table(content: bytes, file: Path) -> TextTable:
    """Read a .csv, .tsv or .txt. Cells are not stripped. Raises InputError with file and line."""
    text, encoding = decode_text(content, file)
    named = re.match(r"sep=([,;\t])\r?\n?", text)  # a line that Excel reads
    skipped = 0
    if named is not None:
        text, skipped, delimiter = text[named.end() :], 1, named[1]
    else:
        usual = {".tsv": "\t", ".txt": BLANK}.get(file.suffix.lower(), ",")
        delimiter = _text_delimiter(text) if usual == BLANK else _delimiter(text, usual, file)
    records = _by_blank if delimiter == BLANK else _by_delimiter(delimiter, file)
    rows: list[list[str]] = []
    numbers = array("q")  # corrections ask for the line of every row
    for number, cells in records(text):
        numbers.append(number)
        rows.append(cells)

    header: list[str] = []
    if rows and is_header(rows[0], [] if delimiter == BLANK else rows[1:]):
        header = [cell.strip() for cell in rows.pop(0)]
    below = 1 if header else 0

    def line(row: int) -> int:
        return skipped + numbers[row + below]

    width = len(header) or max((len(cells) for cells in rows[: 1 if delimiter != BLANK else None]), default=0)
    short = next((row for row, cells in enumerate(rows) if len(cells) != width), None)
    if short is not None:
        raise InputError(f"{file}:{line(short)}: {_wrong_width(rows[short], width, header, delimiter)}")
    is_usual = delimiter == BLANK or (file.suffix.lower(), delimiter) in ((".csv", ","), (".tsv", "\t"))
    forms = ["" if is_usual else DELIMITERS[delimiter], encoding]
    note = " ".join(form for form in forms if form)
    return TextTable(header, rows, line, f"read as {note}" if note else "")


def _wrong_width(cells: list[str], width: int, header: list[str], delimiter: str) -> str:
    if delimiter == BLANK:
        return f"no label ({cells[0][:80]!r}); write 'path label'"
    names = f" ({' '.join(', '.join(header).split())[:200]})" if header else ""
    what = f"{len(cells)} fields, expected {width}{names}"
    if len(cells) > width:
        return f"{what}; put a path that contains a delimiter in quotes"
    return f"{what}; complete the line or delete it"


def _by_delimiter(delimiter: str, file: Path) -> Callable[[str], Iterator[tuple[int, list[str]]]]:
    def records(text: str) -> Iterator[tuple[int, list[str]]]:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        try:
            for cells in reader:
                if cells and (cells[0] or len(cells) == 1 or any(cells)):  # spreadsheets write rows of delimiters only
                    yield reader.line_num, cells
        except csv.Error as error:
            raise InputError(f"{file}:{reader.line_num}: not a table ({error}); check the quotes") from None

    return records


def _by_blank(text: str) -> Iterator[tuple[int, list[str]]]:
    """Rows "path label": cells are split at the last blank, because paths may contain blanks."""
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), start=1):
        cells = line.rsplit(None, 1)
        if cells:
            yield number, cells


def _heads(text: str, delimiter: str) -> list[list[str]]:
    """The first rows as a delimiter splits them. The last one is left out where it may be incomplete."""
    part = text[:SNIFFED]
    reader = csv.reader(io.StringIO(part, newline=""), delimiter=delimiter)
    rows: list[list[str]] = []
    try:
        for cells in reader:
            if cells and any(cells):
                rows.append(cells)
            if len(rows) > SAMPLE:
                break
    except csv.Error:
        pass
    return rows if len(part) == len(text) or len(rows) < 2 or len(rows) > SAMPLE else rows[:-1]


def _num_known(cells: list[str]) -> int:
    return sum(plain_name(cell) in KNOWN for cell in cells) if len(cells) > 1 else 0


def _is_even(rows: list[list[str]]) -> bool:
    return len({len(cells) for cells in rows}) == 1 and len(rows[0]) > 1


def _delimiter(text: str, usual: str, file: Path) -> str:
    """The delimiter of a .csv or .tsv: the one that gives known column names, else rows of one length.

    usual: the delimiter of the file's ending, which wins where it fits.
    """
    heads = {mark: _heads(text, mark) for mark in DELIMITERS}
    known = {mark: _num_known(rows[0]) for mark, rows in heads.items() if rows}
    if not known or known[usual]:
        return usual
    named = [mark for mark, count in known.items() if count]
    fits = named or [mark for mark, rows in heads.items() if _is_even(rows)]
    if len(fits) > 1:
        numbered = [mark for mark in fits if all(is_number(cells[-1]) for cells in heads[mark])]
        fits = numbered if len(numbered) == 1 else fits
    if len(fits) > 1:
        marks = " or ".join(DELIMITERS[mark] for mark in fits)
        raise InputError(f"{file}:1: {marks} ({text.splitlines()[0][:80]!r}); name the columns in the first line")
    return fits[0] if fits else usual


def _text_delimiter(text: str) -> str:
    """The delimiter of a .txt: tabs on all lines, a header with commas or semicolons, or the last blank."""
    lines = [line for line in re.split(r"[\r\n]+", text) if line.strip()]
    if not lines:
        return BLANK
    if all("\t" in line.strip() for line in lines):
        return "\t"
    for mark in (",", ";"):
        names = {plain_name(cell) for cell in lines[0].split(mark)}
        if (PATH in names and LABEL in names) or (len(names) > 1 and names <= KNOWN):
            return mark
    if not any(len(line.split(None, 1)) > 1 for line in lines):
        even = [mark for mark in (",", ";") if _is_even(_heads(text, mark))]
        if len(even) == 1:
            return even[0]
    return BLANK
