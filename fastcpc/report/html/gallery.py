"""The suspected labels as cards with thumbnails, worst first."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from fastcpc.arrays import Ints
from fastcpc.data.image_files import BadImage
from fastcpc.engine.outputs.sample_table import SampleTable
from fastcpc.report.html.canvas import plain_name
from fastcpc.report.html.limits import MOST_CARDS
from fastcpc.report.results.images import TrainingImages, encode
from fastcpc.report.results.run import Run
from fastcpc.report.results.similar_images import near_duplicates, similar_groups, unit_features
from fastcpc.report.results.suspects import Suspects, suspects_table

MOST_TWINS = 24  # pairs of near duplicates
MOST_TEXT = 300  # characters of a file's or a class's name in the page


@dataclass(frozen=True)
class Card:
    """One suspected label.

    image: a data URL; empty without an image, and then problem gives the reason. scores: pairs of name and formatted
    number. pixelated: whether the browser scales it without smoothing. group: number of its group of similar images.
    """

    number: int
    row: int
    path: str
    given: str
    given_label: int
    suggested: str
    predicted_label: int
    true: str
    scores: tuple[tuple[str, str], ...]
    image: str
    pixelated: bool
    problem: str
    group: int


@dataclass(frozen=True)
class Gallery:
    """cards: at most MOST_CARDS, worst first. total: number of all suspected labels. problem: why there are no images.

    table: the rows of the cards in the table of suspects, as JSON: {"columns": [...], "rows": [[...]]}.
    """

    cards: list[Card]
    total: int
    problem: str
    table: dict[str, Any]


def make_gallery(
    run: Run,
    samples: SampleTable,
    suspects: Suspects,
    images: TrainingImages,
    most: int = MOST_CARDS,
    groups: Ints | None = None,
) -> Gallery:
    """Cards of the worst ``most`` suspected labels. Cards of unreadable images have no image.

    groups: int64, the group of similar images of each of these suspects; None: each is alone.
    """
    rows = suspects.rows[: min(most, MOST_CARDS)]
    group_of = np.arange(len(rows)) if groups is None else groups
    table = suspects_table(run, samples, suspects, rows)
    records = table.to_pylist()
    cards = []
    for number, (row, record) in enumerate(zip(rows.tolist(), records, strict=True), start=1):
        image, pixelated, problem = _thumbnail(images, row)
        cards.append(
            Card(
                number,
                row,
                plain_name(record["path"], MOST_TEXT),
                plain_name(record["given_class"], MOST_TEXT),
                record["given_label"],
                plain_name(record["predicted_class"], MOST_TEXT),
                record["predicted_label"],
                plain_name(record.get("true_class") or "", MOST_TEXT),
                _scores(record),
                image,
                pixelated,
                problem,
                int(group_of[number - 1]),
            )
        )
    return Gallery(cards, len(suspects.rows), images.problem, _plain(table))


@dataclass(frozen=True)
class Twins:
    """A pair of near duplicates with different labels: path, given class and image (or empty) of each."""

    paths: tuple[str, str]
    given: tuple[str, str]
    images: tuple[str, str]
    cosine: str


@dataclass(frozen=True)
class Similar:
    """groups: of the cards; None without features, and then problem gives the reason. twins: the first MOST_TWINS of
    ``total`` pairs."""

    groups: Ints | None
    problem: str
    twins: list[Twins]
    total: int


def find_similar(
    run: Run, samples: SampleTable, suspects: Suspects, images: TrainingImages, most: int = MOST_CARDS
) -> Similar:
    """Similar suspects, and near duplicates with different labels."""
    unit_ND, problem = unit_features(run, samples)
    if unit_ND is None or not len(suspects.rows):
        return Similar(None, problem, [], 0)
    # without images nobody can see that two of them are alike; fastcpc-clean lists pairs by their features alone
    pairs = [] if images.problem else near_duplicates(samples, suspects.rows, unit_ND, images)
    twins = []
    for pair in pairs[:MOST_TWINS]:
        rows = (pair.row, pair.other)
        given = (plain_name(run.class_names[int(samples.given_N[row])], MOST_TEXT) for row in rows)
        paths = (plain_name(samples.paths[row], MOST_TEXT) for row in rows)
        pixels = (_thumbnail(images, row)[0] for row in rows)
        twins.append(Twins(tuple(paths), tuple(given), tuple(pixels), f"{pair.cosine:.3f}"))  # type: ignore[arg-type]
    groups = similar_groups(unit_ND[suspects.rows[: min(most, MOST_CARDS)]])
    return Similar(groups, "", twins, len(pairs))


def _scores(record: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    shown = [("label score", "label_score"), ("clean", "clean_probability"), ("suggested", "p_predicted")]
    return tuple((name, f"{record[key]:.3f}") for name, key in shown)


def _plain(table: pa.Table) -> dict[str, Any]:
    return {"columns": table.column_names, "rows": [list(record.values()) for record in table.to_pylist()]}


def _thumbnail(images: TrainingImages, row: int) -> tuple[str, bool, str]:
    """A data URL, whether the image is tiny, and the problem of an unreadable image."""
    if images.problem:
        return "", False, ""
    try:
        image = images.image(row)
        return (*encode(image), "")
    except BadImage as error:
        return "", False, plain_name(str(error), 80)


def as_script(table: dict[str, Any]) -> str:
    """JSON that cannot end its script element: no <, > or &, no line separators."""
    text = json.dumps(table)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def names_of(labels: Sequence[int], run: Run) -> list[tuple[int, str]]:
    """Distinct class ids with their names, in the order of ids."""
    return [(label, plain_name(run.class_names[label], MOST_TEXT)) for label in sorted(set(labels))]
