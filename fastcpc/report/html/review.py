"""What the page needs for decisions: identity of the run, classes, past decisions, and the keys."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from fastcpc.data.corrections.decisions import Correction, describe
from fastcpc.engine.outputs.sample_table import SampleTable
from fastcpc.report.html.gallery import as_script
from fastcpc.report.results.run import Run

SHOWN = 200  # past decisions in the table of the page
KEYS = (
    ("a", "accept the suggested class"),
    ("k", "keep the given label: it is correct"),
    ("o", "another class: type a part of its name, Enter"),
    ("r", "remove the image from training"),
    ("u", "undo: no decision; on an image without one the last decision is taken back"),
    ("Shift + a key above", "the same for all shown images of the group (order by class pair or similar images)"),
    ("arrows, n, p", "next or previous image"),
    ("Esc", "from a field back to the images"),
    ("Space", "select the image"),
    ("s", "save the decisions as corrections.csv"),
    ("?", "this list"),
)


@dataclass(frozen=True)
class PastDecisions:
    """The decisions that a run was trained with. rows: the first SHOWN."""

    text: str
    total: int
    rows: Sequence[Correction]


def past_of(corrections: Sequence[Correction]) -> PastDecisions | None:
    """The past decisions of a page; None where there are none."""
    if not corrections:
        return None
    return PastDecisions(describe(corrections), len(corrections), corrections[:SHOWN])


def storage_key(run: Run, samples: SampleTable) -> str:
    """The key under which a browser keeps the decisions: the same for each report of this run."""
    config, digest = run.config, hashlib.sha256()
    settings = [config.data.name, config.run.name, config.run.seed, config.model.name, config.cleaner.kind]
    digest.update(json.dumps([*settings, *run.labels.class_ids, *samples.paths]).encode())
    digest.update(samples.index_N.astype("<i8").tobytes() + samples.given_N.astype("<i8").tobytes())
    return f"fastcpc-corrections:{digest.hexdigest()[:32]}"


def review_script(run: Run, samples: SampleTable, past: Sequence[Correction]) -> str:
    """The JSON that review.js reads."""
    rows = [[one.index, one.path, one.given, one.decision, _label(one)] for one in past]
    return as_script({"key": storage_key(run, samples), "classes": list(run.class_names), "past": rows})


def _label(one: Correction) -> int | None:
    return one.label if one.decision == "relabel" else None
