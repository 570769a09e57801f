"""Corrections as users hold them: every decision by value, spreadsheets' forms, and each refusal in one line."""

import json
import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastcpc.data.corrections.decisions import Correction, KnownSamples, corrections_csv, describe
from fastcpc.data.corrections.label_studio import ReviewTask, labelling_interface, tasks_json
from fastcpc.data.corrections.reader import read_corrections
from fastcpc.errors import InputError

HEADER = "index,path,given_label,decision,label"
RUN = KnownSamples(
    np.array([3, 5, 8, 9]), ("a.jpg", "b/é.jpg", "=c.jpg", "d,1.jpg"), np.array([0, 1, 2, 0]),
    ("cat", "dog", "hen"), (), "runs/x",
)  # fmt: skip
NUMBERED = KnownSamples(np.arange(3), ("a", "b", "c"), np.array([0, 1, 2]), ("1", "2", "3"), (), "runs/x")
ALL = (
    Correction(3, "a.jpg", 0, "relabel", 2),
    Correction(5, "b/é.jpg", 1, "keep", 1),
    Correction(8, "=c.jpg", 2, "remove", -1),
)


def file_of(folder: Path, *lines: str, name: str = "c.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes("\n".join([*lines, ""]).encode(encoding))
    return path


def test_a_written_table_is_read_back(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_bytes(corrections_csv(ALL))
    assert (tmp_path / "c.csv").read_text(encoding="utf-8").splitlines() == [
        HEADER, "3,a.jpg,0,relabel,2", "5,b/é.jpg,1,keep,", "8,'=c.jpg,2,remove,",
    ]  # fmt: skip
    assert read_corrections(tmp_path / "c.csv", RUN) == ALL
    assert describe(ALL) == "3 decisions (1 relabelled, 1 kept, 1 removed)"


@pytest.mark.parametrize(
    ("lines", "encoding", "note"),
    [
        (["index;path;given_label;decision;label\r", "3;a.jpg;0;relabel;2\r"], "utf-8-sig", "semicolon"),
        (["sep=;", "index;path;given_label;decision;label", "3;a.jpg;0;relabel;hen"], "utf-8", "semicolon"),
        (["index\tpath\tgiven_label\tdecision\tlabel", "3\ta.jpg\tcat\trelabel\then"], "utf-16", ""),
        ([HEADER, "3,./a.jpg,0.0,relabel,2.0"], "utf-8", ""),
        (["path,label,decision,given_label,extra", "a.jpg,hen,relabel,cat,1"], "utf-8", ""),
        (["Index,Given label,Decision,Label", "3,0,relabel,2"], "utf-8", ""),
        (
            [HEADER, "3,a.jpg,0,relabel,2", "3,a.jpg,cat,relabel,hen"],
            "utf-8",
            "1 row with a repeated decision left out",
        ),
    ],
)
def test_forms_of_spreadsheets(
    lines: list[str], encoding: str, note: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "fastcpc"):
        assert read_corrections(file_of(tmp_path, *lines, encoding=encoding), RUN) == ALL[:1]
    assert len(caplog.messages) <= 1 and (not note or note in caplog.text)


def test_a_relabel_to_the_given_label_is_a_keep(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "fastcpc"):
        found = read_corrections(file_of(tmp_path, HEADER, "5,b/é.jpg,1,relabel,dog"), RUN)
    assert found == ALL[1:2] and "1 relabelled to the given label read as keep" in caplog.text


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("4,a.jpg,0,keep,", r"c\.csv:2: index 4 is no training sample's index \(runs/x\); use the corrections of this"),
        ("x,a.jpg,0,keep,", r"c\.csv:2: index 'x' is not a whole number; correct the index"),
        ("3,b/é.jpg,0,keep,", r"c\.csv:2: index 3 is 'a\.jpg', not 'b/é\.jpg'; .* delete its column index"),
        (",z.jpg,0,keep,", r"c\.csv:2: 'z\.jpg' is no training sample's path \(runs/x\); write paths as 'a\.jpg'"),
        ("3,a.jpg,1,keep,", r"c\.csv:2: given_label 1 where runs/x has 0 \('cat'\) for 'a\.jpg'; the file is of other"),
        ("3,a.jpg,,keep,", r"c\.csv:2: no given_label; write the label that runs/x has"),
        (
            "3,a.jpg,0,relabel,cow",
            r"c\.csv:2: label 'cow' is no class name.*; write a class name or a number in 0\.\.2",
        ),
        ("3,a.jpg,0,relabel,Hen", r"c\.csv:2: label 'Hen' is no class name \(did you mean hen\?\)"),
        ("3,a.jpg,0,relabel,3", r"c\.csv:2: label 3 is outside 0\.\.2; use a class of this data set"),
        ("3,a.jpg,0,relabel,-1", r"c\.csv:2: label -1 is outside 0\.\.2"),
        ("3,a.jpg,0,relabel,", r"c\.csv:2: decision relabel without a label; write the new class in column label"),
        ("3,a.jpg,0,keep,2", r"c\.csv:2: decision keep with label 2, and the given label is 0; write relabel, or no"),
        ("3,a.jpg,0,Keep,", r"c\.csv:2: decision 'Keep' \(did you mean keep\?\); write relabel, keep or remove"),
        (",,0,keep,", r"c\.csv:2: neither index nor path; name the sample, or delete the row"),
        ("3,a.jpg,0,,", r"c\.csv:2: decision ''; write relabel, keep or remove"),
    ],
)
def test_a_row_that_does_not_fit_is_refused(row: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read_corrections(file_of(tmp_path, HEADER, row), RUN)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([HEADER, "3,a.jpg,0,keep,", "3,a.jpg,0,relabel,2"], r"c\.csv:3: 'a\.jpg' again, .* to 2; line 2 has keep;"),
        ([HEADER, "3,a.jpg,0,relabel,1", "3,a.jpg,0,relabel,2"], r"relabel to 2; line 2 has relabel to 1; keep one"),
        (["index,path,decision,label", "3,a.jpg,keep,"], r"c\.csv:1: no column 'given_label'; the columns are"),
        (
            ["annotation_id,decision,index,label,path", "1,,3,hen,a.jpg"],
            r"c\.csv: a table of Label Studio, without the given labels; export as JSON",
        ),
        (
            ["index,given_label,decision,Decision,label", "3,0,keep,remove,"],
            r"c\.csv:1: 'decision' and 'Decision' are both the column 'decision'; rename one of them",
        ),
        (["given_label,decision,label", "0,keep,"], r"c\.csv:1: no column 'index'"),
        ([HEADER], r"c\.csv: a header but no rows"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_refused(lines: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read_corrections(file_of(tmp_path, *lines), RUN)


def test_the_time_of_a_long_file_grows_with_its_length(tmp_path: Path) -> None:
    """Each row asks for its line. Counting lines again for each of 20,000 rows took minutes."""
    file = file_of(tmp_path, HEADER, *["3,a.jpg,0,keep,"] * 20_000, "3,a.jpg,0,remove,")
    begin = time.process_time()
    with pytest.raises(InputError, match=r"c\.csv:20002: 'a\.jpg' again, with decision remove; line 2 has keep"):
        read_corrections(file, RUN)
    assert time.process_time() - begin < 10


def test_rows_about_test_images_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Such as decisions about an audit of all images: the test part is no training sample, and its label stays."""
    known = replace(RUN, others=frozenset(("t.jpg", "a.jpg")))  # a.jpg is also for training
    file = file_of(tmp_path, HEADER, "70,t.jpg,9,relabel,9", "3,a.jpg,0,relabel,2")
    with caplog.at_level(logging.WARNING, "fastcpc"):
        assert read_corrections(file, known) == ALL[:1]
    assert "1 rows about images that are not for training left out" in caplog.text


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"c\.xlsx: unknown kind of corrections; use \.csv, \.parquet, or Label"):
        read_corrections(tmp_path / "c.xlsx", RUN)


@pytest.mark.parametrize(("given", "label", "meaning"), [("1", 2, "numbers"), ("2", 1, "names")])
def test_given_labels_show_what_numbers_mean(
    given: str, label: int, meaning: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Classes with the names 1, 2, 3: sample b has class number 1, which has the name 2."""
    with caplog.at_level(logging.WARNING, "fastcpc"):
        found = read_corrections(file_of(tmp_path, HEADER, f"1,b,{given},relabel,2"), NUMBERED)
    expected = "keep" if label == 1 else "relabel"
    assert found == (Correction(1, "b", 1, expected, label),)  # type: ignore[arg-type]
    assert f"labels are class {meaning}: class number 0 has the name '1'" in caplog.text


def export(folder: Path, *choices: dict[str, str] | None, edit: Any = None) -> Path:
    """Label Studio's JSON export of tasks for the first samples; None: no annotation."""
    tasks = [
        ReviewTask(int(RUN.index_N[row]), RUN.names[row], RUN.class_names[RUN.given_N[row]], "hen", 0.5, "x")
        for row in range(len(choices))
    ]
    content = json.loads(tasks_json(tasks, "m"))
    for number, (task, chosen) in enumerate(zip(content, choices, strict=True), start=1):
        result = [
            {"from_name": name, "to_name": "image", "type": "choices", "value": {"choices": [value]}}
            for name, value in (chosen or {}).items()
        ]
        task |= {"id": number, "annotations": [] if chosen is None else [{"result": result, "was_cancelled": False}]}
        if edit is not None:
            edit(task)
    path = folder / "export.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_an_export_of_label_studio(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "fastcpc"):
        found = read_corrections(
            export(tmp_path, {"label": "hen"}, {"label": "dog"}, {"label": "cat", "decision": "remove"}, None), RUN
        )
    assert found == ALL and "1 tasks without an annotation have no decision" in caplog.text


def cancel(task: Any) -> None:
    task["annotations"][0]["was_cancelled"] = True


def disagree(task: Any) -> None:
    task["annotations"] += [{"result": [{"from_name": "label", "value": {"choices": ["dog"]}}]}]


def minimal(task: Any) -> None:
    del task["annotations"]


def null(task: Any) -> None:
    task["annotations"] = [None]


def null_result(task: Any) -> None:
    task["annotations"] = [{"result": None}]


def text_value(task: Any) -> None:
    task["annotations"] = [{"result": [{"from_name": "label", "value": "hen"}]}]


def number_of_choices(task: Any) -> None:
    task["annotations"] = [{"result": [{"from_name": "label", "value": {"choices": 5}}]}]


def foreign(task: Any) -> None:
    del task["data"]["given_class"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (cancel, r"export\.json: no task has an annotation; annotate tasks in Label Studio and export again"),
        (disagree, r"export\.json: task 1: annotations disagree \(dog and hen\); keep one annotation per task"),
        (minimal, r"export\.json: task 1: no data or annotations; export as JSON, not as JSON-MIN"),
        *(
            (edit, r"export\.json: task 1: its annotations are not those of Label Studio; export as JSON again")
            for edit in (null, null_result, text_value, number_of_choices)
        ),
        (foreign, r"task 1: data has no 'given_class'; import the tasks of fastcpc-clean --label-studio"),
    ],
)
def test_an_export_that_does_not_fit_is_refused(edit: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read_corrections(export(tmp_path, {"label": "hen"}, edit=edit), RUN)


@pytest.mark.parametrize("content", [b"{", b"{}", b"[1]"])
def test_a_damaged_export_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "e.json").write_bytes(content)
    with pytest.raises(InputError, match=r"e\.json: not"):
        read_corrections(tmp_path / "e.json", RUN)


def test_tasks_have_the_suggestion_and_the_sample() -> None:
    (task,) = json.loads(tasks_json([ReviewTask(3, "a.jpg", "cat", "hen", 0.25, "/data/local-files/?d=a.jpg")], "run"))
    assert task["data"] == {
        "image": "/data/local-files/?d=a.jpg", "index": 3, "path": "a.jpg", "given_class": "cat",
        "suggested_class": "hen",
    }  # fmt: skip
    (prediction,) = task["predictions"]
    assert (prediction["model_version"], prediction["score"]) == ("run", 0.25)
    assert prediction["result"] == [
        {"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": ["hen"]}}
    ]
    assert b'<Choice value="a &amp; &lt;b&gt;"/>' in labelling_interface(["a & <b>"])
