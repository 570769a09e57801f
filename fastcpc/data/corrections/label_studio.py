"""Suspects as pre-annotated tasks of Label Studio, and its JSON export as decisions.

A task has two groups of choices: ``label``, one choice per class, and ``decision`` with the choice ``remove``. The
suggested label is the pre-annotation. Label Studio returns ``data`` of each task unchanged, so the export names the
sample and its given label.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from fastcpc.data.corrections.decisions import KEEP, RELABEL, REMOVE
from fastcpc.errors import InputError

LABEL, DECISION, IMAGE = "label", "decision", "image"  # names in the labelling interface
KEYS = ("index", "path", "given_class")


@dataclass(frozen=True)
class ReviewTask:
    """One suspect. image: the address that Label Studio loads. score: probability of the suggested class."""

    index: int
    path: str
    given_class: str
    suggested_class: str
    score: float
    image: str


def tasks_json(tasks: Sequence[ReviewTask], model_version: str) -> bytes:
    """The file that Label Studio imports. model_version: name of the pre-annotations."""
    return json.dumps([_task(task, model_version) for task in tasks], ensure_ascii=False, indent=1).encode()


def _task(task: ReviewTask, model_version: str) -> dict[str, Any]:
    result = [_choice(LABEL, task.suggested_class)]
    return {
        "data": {
            "image": task.image,
            "index": task.index,
            "path": task.path,
            "given_class": task.given_class,
            "suggested_class": task.suggested_class,
        },
        "predictions": [{"model_version": model_version, "score": task.score, "result": result}],
    }


def _choice(name: str, value: str) -> dict[str, Any]:
    return {"from_name": name, "to_name": IMAGE, "type": "choices", "value": {"choices": [value]}}


def labelling_interface(class_names: Sequence[str]) -> bytes:
    """The XML of the labelling interface, for a project of Label Studio."""
    choices = "".join(f"      <Choice value={quoteattr(name)}/>\n" for name in class_names)
    return (
        '<View style="display: flex; gap: 1em">\n'  # a large image would hide choices below it
        f'  <View style="flex: 3; min-width: 0"><Image name="{IMAGE}" value="$image"/></View>\n'
        '  <View style="flex: 1">\n'
        '    <Header value="given: $given_class, suggested: $suggested_class"/>\n'
        f'    <Choices name="{LABEL}" toName="{IMAGE}" choice="single">\n{choices}    </Choices>\n'
        f'    <Choices name="{DECISION}" toName="{IMAGE}" choice="single"><Choice value="{REMOVE}"/></Choices>\n'
        "  </View>\n"
        "</View>\n"
    ).encode()


def read_label_studio(path: Path, content: bytes) -> tuple[list[tuple[str, ...]], list[str]]:
    """The decisions of a JSON export, and notes.

    A decision is the texts place, index, path, given label, decision, label. Tasks without an annotation, and skipped
    ones, have no decision. Raises InputError with the task's number for two annotations that differ.
    """
    try:
        tasks = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({' '.join(str(error).split())[:80]}); export as JSON again") from None
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise InputError(f"{path}: not a list of tasks; export from Label Studio as JSON")
    rows, open_tasks = [], 0
    for number, task in enumerate(tasks, start=1):
        row = _decision(f"{path}: task {task.get('id', number)}", task)
        if row is None:
            open_tasks += 1
        else:
            rows.append(row)
    return rows, [f"{open_tasks:,} tasks without an annotation have no decision"] if open_tasks else []


def _decision(place: str, task: dict[str, Any]) -> tuple[str, ...] | None:
    data, annotations = task.get("data"), task.get("annotations")
    if not isinstance(data, dict) or not isinstance(annotations, list):
        raise InputError(f"{place}: no data or annotations; export as JSON, not as JSON-MIN")
    missing = next((key for key in KEYS if key not in data), None)
    if missing is not None:
        raise InputError(f"{place}: data has no {missing!r}; import the tasks of fastcpc-clean --label-studio")
    given = str(data["given_class"])
    try:
        found = {_choices(place, one) for one in annotations if not one.get("was_cancelled")} - {("", False)}
    except (AttributeError, TypeError):  # a value of another type than Label Studio writes
        raise InputError(f"{place}: its annotations are not those of Label Studio; export as JSON again") from None
    if not found:
        return None
    if len(found) > 1:
        texts = " and ".join(sorted(REMOVE if removed else label for label, removed in found))
        raise InputError(f"{place}: annotations disagree ({texts[:120]}); keep one annotation per task")
    label, removed = found.pop()
    decision = REMOVE if removed else KEEP if label == given else RELABEL
    return place, str(data["index"]), str(data["path"]), given, decision, label if decision == RELABEL else ""


def _choices(place: str, annotation: dict[str, Any]) -> tuple[str, bool]:
    """The chosen class (or empty) and whether the sample is removed, of one annotation."""
    chosen: dict[str, str] = {}
    for result in annotation.get("result", []):
        choices = result.get("value", {}).get("choices", [])
        if len(choices) > 1:
            raise InputError(f"{place}: {len(choices)} choices for {result.get('from_name')!r}; choose one class")
        if choices:
            chosen[str(result.get("from_name"))] = str(choices[0])
    removed = chosen.get(DECISION) == REMOVE
    return "" if removed else chosen.get(LABEL, ""), removed
