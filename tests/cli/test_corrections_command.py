"""fastcpc-clean --corrections: the corrected list of each kind of data set, read back, and what it refuses."""

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from decisions import true_decisions
from finished_run import finished_run
from image_sets import clothing1m, imagefolder, webvision
from made_embeddings import CLASSES, clusters
from small_run import small_config

from fastcpc.cli import clean as command
from fastcpc.cli.embeddings import audit as audit_command
from fastcpc.config.load import load_config, to_yaml
from fastcpc.config.schema import Config
from fastcpc.data.corrections.decisions import Correction, corrections_csv
from fastcpc.data.registry import list_images
from fastcpc.engine.launch import load_data
from fastcpc.engine.outputs.data_record import identity_of, write_record
from fastcpc.engine.outputs.labels_file import write_labels
from fastcpc.engine.outputs.sample_table import SampleTable
from fastcpc.report.results.run import read_run
from fastcpc.report.results.samples import read_samples
from fastcpc.report.results.suspects import find_suspects

NUM = 12


def write(path: Path, decisions: Sequence[Correction]) -> Path:
    path.write_bytes(corrections_csv(decisions))
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return finished_run(tmp_path / "run")


def test_a_label_list_of_digits(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    decisions = true_decisions(read_run(folder).config, NUM)
    file, target = write(tmp_path / "c.csv", decisions), tmp_path / "labels.csv"
    assert command.main([str(folder), "--corrections", str(file), "--cleaned-list", str(target)]) == 0
    printed = capsys.readouterr().out
    assert "c.csv: 12 decisions (" in printed and "suspects without a decision keep their given labels" in printed
    assert "3 removed samples stay in it, because this data set cannot omit samples" in printed
    assert not (folder / "suspects.csv").exists()
    config = read_run(folder).config
    plain = load_data(replace(config, data=replace(config.data, subset=0)))[1].given
    noise = replace(config.noise, kind="file", file=str(target), rate=0.0)
    dataset, labels = load_data(replace(config, noise=noise, data=replace(config.data, subset=0)))
    new = {one.index: one.label for one in decisions if one.decision == "relabel"}
    expected = [new.get(i, k) for i, k in zip(dataset.train.source_index.tolist(), plain.tolist(), strict=True)]
    assert new and labels.given.tolist() == expected


def test_other_files_omit_decided_samples(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = read_run(folder)
    suspects = find_suspects(run, read_samples(run))
    decisions = true_decisions(run.config, 240)[:200]
    decided = {one.index for one in decisions}
    file = write(tmp_path / "c.csv", decisions)
    arguments = ["--out", "s.csv", "--label-studio", "t.json", "--corrections-out", "d.csv"]
    arguments = [str(tmp_path / text) if "." in text else text for text in arguments]
    assert command.main([str(folder), "--corrections", str(file), *arguments]) == 0
    index = read_samples(run).index_N[suspects.rows].tolist()
    left = [i for i in index if i not in decided]
    assert 0 < len(left) < len(index)
    assert [int(row["index"]) for row in rows_of(tmp_path / "s.csv")] == left
    assert (tmp_path / "d.csv").read_bytes() == file.read_bytes()
    tasks = json.loads((tmp_path / "t.json").read_text())
    assert [task["data"]["index"] for task in tasks] == left
    assert tasks[0]["data"]["image"].startswith("data:image/png;base64,")
    assert (tmp_path / "t.xml").read_text().count("<Choice ") == 11
    assert "tasks for Label Studio written to" in capsys.readouterr().out

    for task in tasks[:3]:  # annotate: accept the suggestion, keep, remove
        chosen = {"label": task["data"]["suggested_class"]}
        if task is tasks[1]:
            chosen = {"label": task["data"]["given_class"]}
        if task is tasks[2]:
            chosen = {"decision": "remove"}
        result = [{"from_name": name, "value": {"choices": [value]}} for name, value in chosen.items()]
        task["annotations"] = [{"result": result}]
    for task in tasks[3:]:
        task["annotations"] = []
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    arguments = ["--corrections", str(tmp_path / "export.json"), "--corrections-out", str(tmp_path / "e.csv")]
    assert command.main([str(folder), *arguments]) == 0
    found = {int(row["index"]): (row["decision"], row["label"]) for row in rows_of(tmp_path / "e.csv")}
    first = tasks[0]["data"]
    assert found == {
        first["index"]: ("relabel", first["suggested_class"]),
        left[1]: ("keep", ""),
        left[2]: ("remove", ""),
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--corrections", "none.csv"], "--corrections none.csv: no such file"),
        (["--corrections-out", "{0}/d.csv"], "--corrections-out: needs --corrections FILE, the decisions to write"),
        (["--corrections", "{0}/c.csv", "--corrections-out", "{0}/c.csv", "--force"], "are both {0}/c.csv; give two"),
        (["--label-studio", "{0}/t.csv"], "t.csv: unknown kind of file; use .json"),
        (
            ["--corrections", "{0}/c.csv", "--cleaned-list", "{0}/l.txt"],
            "l.txt: a label file of digits must end in .csv",
        ),
        (["--corrections", "{0}/bad.csv"], "bad.csv:2: index 5000 is no training sample's index ({0}/run)"),
        (
            ["--corrections", "{0}/bad.csv", "--cleaned-list", "{0}/l.csv"],
            "bad.csv:2: index 5000 is no training sample's",
        ),
    ],
)
def test_what_is_refused(
    options: list[str], message: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "c.csv", true_decisions(read_run(folder).config, 2))
    write(tmp_path / "bad.csv", [Correction(5000, "train/05000", 1, "keep", 1)])
    assert command.main([str(folder), *(text.format(tmp_path) for text in options)]) == 2
    error = capsys.readouterr().err
    assert message.format(tmp_path) in error and error.count("\n") == 1, error
    assert not (tmp_path / "l.csv").exists()


def run_on(config: Config, folder: Path) -> list[Correction]:
    """A run's folder as far as fastcpc-clean needs one; decisions: relabel, keep, remove for its first samples."""
    dataset, labels = load_data(config)
    folder.mkdir()
    (folder / "config.yaml").write_text(to_yaml(config))
    write_record(folder, identity_of(config, dataset, labels))
    write_labels(folder / "labels.npz", labels, dataset.train.source_index, dataset.class_names, dataset.class_ids)
    ones = np.ones(len(labels.given))
    SampleTable(
        index_N=dataset.train.source_index, paths=dataset.train.names, given_N=labels.given, predicted_N=labels.given,
        q_N2={}, clean_prob_N=ones, p_given_N=ones, p_predicted_N=ones, is_clean_N=ones > 0,
    ).write(folder / "clean_probabilities.parquet")  # fmt: skip
    rows = [*zip(dataset.train.source_index.tolist(), dataset.train.names, labels.given.tolist(), strict=True)][:3]
    kinds = ("relabel", "keep", "remove")
    new = [1 - rows[0][2], rows[1][2], -1]
    return [Correction(*row, kind, label) for row, kind, label in zip(rows, kinds, new, strict=True)]  # type: ignore[arg-type]


@pytest.mark.parametrize("target", ["kept.csv", "kept.parquet", "kept"])
def test_the_list_of_an_image_folder_trains_as_the_corrections(
    target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = imagefolder(tmp_path / "images", {"a": 6, "b": 6})
    config = load_config([], ["data.name=imagefolder", f"data.root={root}"])
    decisions = run_on(config, tmp_path / "run")
    file = write(tmp_path / "c.csv", decisions)
    arguments = ["--corrections", str(file), "--cleaned-list", str(tmp_path / target)]
    assert command.main([str(tmp_path / "run"), *arguments]) == 0, capsys.readouterr().err
    whole = list_images(config.data).splits
    data = replace(config.data, list=str(tmp_path / target), classes=str(tmp_path / "kept.classes.txt"))
    data = data if target != "kept" else replace(config.data, root=str(tmp_path / target))
    after = list_images(data).splits
    assert len(after["train"]) == len(whole["train"]) - 1 and len(after["test"]) == len(whole["test"])
    by_file = {Path(path).resolve(): k for path, k in zip(after["train"].paths, after["train"].labels, strict=True)}
    assert by_file[(root / decisions[0].path).resolve()] == decisions[0].label
    assert by_file[(root / decisions[1].path).resolve()] == decisions[1].given
    assert (root / decisions[2].path).resolve() not in by_file
    corrected = load_data(replace(config, data=replace(config.data, corrections=str(file))))
    assert sorted(by_file.values()) == sorted(corrected[1].given.tolist())


def test_addresses_of_image_files_in_label_studio(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It serves files below a folder inside its document root, so addresses begin with the folder of the images."""
    root = imagefolder(tmp_path / "my images", {"a": 6, "b": 6})
    config = load_config([], ["data.name=imagefolder", f"data.root={root}"])
    run_on(config, tmp_path / "run")
    table = SampleTable.read(tmp_path / "run" / "clean_probabilities.parquet")
    table = replace(
        table, predicted_N=1 - table.given_N, is_clean_N=table.is_clean_N < 0, clean_prob_N=table.p_given_N * 0
    )
    table.write(tmp_path / "run" / "clean_probabilities.parquet")
    command_line = [str(tmp_path / "run"), "--out", str(tmp_path / "s.csv"), "--label-studio"]
    assert command.main([*command_line, str(tmp_path / "t.json")]) == 0
    said = f"DOCUMENT_ROOT={tmp_path}, and add {root} as a storage of local files"
    assert said in capsys.readouterr().out
    for task in json.loads((tmp_path / "t.json").read_text()):
        relative = unquote(task["data"]["image"].removeprefix("/data/local-files/?d="))
        assert (tmp_path / relative).samefile(root / task["data"]["path"])
    outside = replace(table, paths=(str(root / table.paths[0]), *table.paths[1:]))
    outside.write(tmp_path / "run" / "clean_probabilities.parquet")
    assert command.main([*command_line, str(tmp_path / "u.json"), "--force"]) == 0
    tasks = json.loads((tmp_path / "u.json").read_text())
    assert tasks and all(task["data"]["image"].startswith("data:image/") for task in tasks)


@pytest.mark.parametrize("name", ["webvision", "clothing1m"])
def test_an_own_list_without_removed_images(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = (webvision if name == "webvision" else clothing1m)(tmp_path / "w")
    config = load_config([], [f"data.name={name}", f"data.root={root}", *["data.num_classes=2"][: name == "webvision"]])
    decisions = run_on(config, tmp_path / "run")
    arguments = [str(tmp_path / "run"), "--corrections", str(tmp_path / "c.csv"), "--cleaned-list"]
    write(tmp_path / "c.csv", decisions)
    assert command.main([*arguments, str(tmp_path / "l.txt")]) == 2
    assert "own list has no place for corrected labels; train with data.corrections" in capsys.readouterr().err
    write(tmp_path / "c.csv", decisions[1:])
    assert command.main([*arguments, str(tmp_path / "l.txt")]) == 0
    before = list_images(config.data).splits["train"].names
    own = "info/train_filelist_google.txt" if name == "webvision" else "noisy_train_key_list.txt"
    (root / own).write_bytes((tmp_path / "l.txt").read_bytes())
    assert set(before) - set(list_images(config.data).splits["train"].names) == {decisions[2].path}


def test_corrections_of_an_audit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Classes are named 1 to K: class numbers of the suspects' table, with a note."""
    values, labels = clusters(300, spread=0.8)
    given = labels.copy()
    given[::20] = (given[::20] + 1) % CLASSES
    np.save(tmp_path / "x.npy", values.astype(np.float16))
    np.save(tmp_path / "y.npy", given + 1)
    files = ["--embeddings", str(tmp_path / "x.npy"), "--labels", str(tmp_path / "y.npy")]
    assert audit_command.main([*files, "--out", str(tmp_path / "run")]) == 0
    suspects = rows_of(tmp_path / "run" / "suspects.csv")
    assert len(suspects) > 5
    columns = ("index", "path", "given_label")
    lines = [",".join([*(row[name] for name in columns), "relabel", row["predicted_label"]]) for row in suspects[:5]]
    (tmp_path / "c.csv").write_text("\n".join(["index,path,given_label,decision,label", *lines, ""]))
    arguments = ["--corrections", str(tmp_path / "c.csv"), "--cleaned-list", str(tmp_path / "l.csv")]
    assert command.main([str(tmp_path / "run"), *arguments]) == 0
    assert "labels are class numbers: class number 0 has the name '1'" in caplog.text
    config = load_config([tmp_path / "run" / "config.yaml"], [f"data.corrections={tmp_path / 'c.csv'}"])
    _, corrected = load_data(config)
    listed = {int(row["index"]): int(row["label"]) - 1 for row in rows_of(tmp_path / "l.csv")}
    for row in suspects[:5]:
        assert listed[int(row["index"])] == int(row["predicted_label"])
    assert corrected.confirmed is not None and corrected.confirmed.sum() == 5
    assert sorted(listed.values()) == sorted(corrected.given.tolist())


def test_decisions_of_the_run_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a second round the file has the past decisions, which name the labels before any correction."""
    folder = finished_run(tmp_path / "run")
    plain = small_config(folder)
    past = true_decisions(plain, NUM)
    write(folder / "applied_corrections.csv", past)
    config = replace(plain, data=replace(plain.data, corrections=str(folder / "applied_corrections.csv")))
    dataset, labels = load_data(config)
    (folder / "config.yaml").write_text(to_yaml(config))
    write_record(folder, identity_of(config, dataset, labels))
    write_labels(folder / "labels.npz", labels, dataset.train.source_index, dataset.class_names, dataset.class_ids)
    samples = read_samples_of(folder, dataset.train.source_index.tolist())
    replace(samples, given_N=labels.given, paths=dataset.train.names).write(folder / "clean_probabilities.parquet")
    both = (*past, *true_decisions(plain, 4, first=NUM))
    for number, (decisions, text) in enumerate([(both, "16 decisions"), (both[NUM:], "12 decisions that")]):
        file = write(tmp_path / f"{number}.csv", decisions)
        assert command.main([str(folder), "--corrections", str(file)]) == 0
        assert text in capsys.readouterr().out


def read_samples_of(folder: Path, index: list[int]) -> SampleTable:
    """The rows of a run's table with these indexes."""
    table = SampleTable.read(folder / "clean_probabilities.parquet")
    rows = np.flatnonzero(np.isin(table.index_N, index))
    per_sample = ("index_N", "given_N", "predicted_N", "clean_prob_N", "p_given_N", "p_predicted_N", "is_clean_N")
    taken = {name: getattr(table, name)[rows] for name in per_sample}
    q_N2 = {name: values[rows] for name, values in table.q_N2.items()}
    return replace(table, **taken, q_N2=q_N2, paths=tuple(table.paths[row] for row in rows), true_N=None)


def test_the_documented_lines_for_fiftyone(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They run against a module that keeps what it gets: the columns exist, and bad labels have a high mistakenness."""
    page = (Path(__file__).parents[2] / "docs" / "results.md").read_text(encoding="utf-8")
    code = page[page.index("## FiftyOne") :].split("```python\n")[1].split("```")[0]
    fake = ModuleType("fiftyone")
    kept: list[dict[str, Any]] = []
    fake.Sample = dict  # type: ignore[attr-defined]
    fake.Classification = dict  # type: ignore[attr-defined]
    fake.Dataset = lambda: SimpleNamespace(add_samples=kept.extend)  # type: ignore[attr-defined]
    fake.launch_app = lambda _: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fiftyone", fake)
    monkeypatch.chdir(tmp_path)
    assert command.main([str(folder), "--out", "suspects.parquet"]) == 0
    exec(code, {})
    run = read_run(folder)
    samples = read_samples(run)
    rows = find_suspects(run, samples).rows
    assert [one["filepath"] for one in kept] == [f"/path/to/images/{samples.paths[row]}" for row in rows.tolist()]
    assert [one["mistakenness"] for one in kept] == (1 - samples.p_given_N[rows]).tolist()
    assert kept[0]["given"]["label"] == str(samples.given_N[rows[0]])
    assert kept[0]["predicted"]["label"] == str(samples.predicted_N[rows[0]])
