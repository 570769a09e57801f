"""Corrections of a data set: labels by value, what counts as confirmed, and samples that are left out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_run import small_config

from fastcpc.data.corrections.apply import apply_corrections
from fastcpc.data.corrections.decisions import Correction, corrections_csv
from fastcpc.data.identity import REMOVED, TRAIN, compare
from fastcpc.engine.launch import load_data
from fastcpc.engine.outputs.corrections_file import APPLIED_FILE, read_applied, with_applied, write_applied
from fastcpc.engine.outputs.data_record import from_bytes, identity_of, to_bytes
from fastcpc.errors import InputError


def test_labels_and_samples_of_a_corrected_subset(tmp_path: Path) -> None:
    config = small_config(tmp_path / "run")
    dataset, labels = load_data(config)
    index, given = dataset.train.source_index.tolist(), labels.given.tolist()
    whole, noisy = load_data(replace(config, data=replace(config.data, subset=0)))
    outside = next(row for row, i in enumerate(whole.train.source_index.tolist()) if i not in index)
    elsewhere = int(whole.train.source_index[outside]), whole.train.names[outside], int(noisy.given[outside])
    new = (given[0] + 1) % 10
    decisions = (
        Correction(index[0], dataset.train.names[0], given[0], "relabel", new),
        Correction(index[1], dataset.train.names[1], given[1], "keep", given[1]),
        Correction(index[2], dataset.train.names[2], given[2], "remove", -1),
        Correction(*elsewhere, "relabel", 9 - elsewhere[2]),
    )
    (tmp_path / "c.csv").write_bytes(corrections_csv(decisions))
    now, corrected = load_data(replace(config, data=replace(config.data, corrections=str(tmp_path / "c.csv"))))
    assert now.train.source_index.tolist() == index[:2] + index[3:]
    assert corrected.given.tolist() == [new, *given[1:2], *given[3:]]
    assert corrected.confirmed is not None and np.flatnonzero(corrected.confirmed).tolist() == [0, 1]
    assert labels.trusted is not None and corrected.trusted is not None
    assert corrected.trusted.tolist() == np.delete(labels.trusted, 2).tolist()
    assert set(corrected.corrections) == set(decisions)
    place = now.left_out.names.index(whole.train.names[outside])
    assert now.left_out.labels[place] == 9 - elsewhere[2]
    assert [now.left_out.names[row] for row in np.flatnonzero(now.left_out.removed)] == [dataset.train.names[2]]
    part = identity_of(config, now, corrected).parts[TRAIN]
    assert [part.names[row] for row in np.flatnonzero(part.use_N == REMOVED)] == [dataset.train.names[2]]


def test_a_removed_sample_outside_the_subset_is_marked() -> None:
    config = small_config(Path("unused"))
    dataset, labels = load_data(config)
    name = dataset.left_out.names[4]
    row = Correction(int(name.rpartition("/")[2]), name, int(dataset.left_out.labels[4]), "remove", -1)
    now, corrected = apply_corrections(dataset, labels, (row,))
    assert np.flatnonzero(now.left_out.removed).tolist() == [4] and len(corrected.given) == len(labels.given)


def test_removing_every_sample_is_refused() -> None:
    dataset, labels = load_data(small_config(Path("unused"), data={"subset": 5}))
    rows = zip(dataset.train.source_index.tolist(), dataset.train.names, labels.given.tolist(), strict=True)
    with pytest.raises(InputError, match=r"data\.corrections: removes every training sample; keep some"):
        apply_corrections(dataset, labels, tuple(Correction(i, name, k, "remove", -1) for i, name, k in rows))


def test_the_identity_has_the_confirmed_labels() -> None:
    config = small_config(Path("unused"), data={"subset": 20})
    dataset, labels = load_data(config)
    plain = identity_of(config, dataset, labels)
    i, name, given = int(dataset.train.source_index[3]), dataset.train.names[3], int(labels.given[3])
    kept = identity_of(config, *apply_corrections(dataset, labels, (Correction(i, name, given, "keep", given),)))
    assert kept.digest != plain.digest and from_bytes(to_bytes(kept), Path("x")).digest == kept.digest
    j, other, label = int(dataset.train.source_index[4]), dataset.train.names[4], int(labels.given[4])
    second = identity_of(config, *apply_corrections(dataset, labels, (Correction(j, other, label, "keep", label),)))
    assert second.digest != kept.digest
    found = compare(plain, kept)
    assert found is not None and found.text == "data.corrections confirms other labels"
    assert compare(plain, kept, {"test"}) is None
    gone = identity_of(config, *apply_corrections(dataset, labels, (Correction(i, name, given, "remove", -1),)))
    found, back = compare(plain, gone), compare(gone, plain)
    text = f"train: 20 images then, 19 now; 1 removed by data.corrections (first {name})"
    assert found is not None and found.text == text
    assert back is not None and f"1 no longer removed by data.corrections (first {name})" in back.text


def test_the_copy_in_a_run_s_folder(tmp_path: Path) -> None:
    decisions = (
        Correction(1, "=a", 0, "relabel", 2),
        Correction(2, "b", 1, "remove", -1),
        Correction(3, "c", 2, "keep", 2),
    )
    write_applied(tmp_path, decisions)
    assert read_applied(tmp_path) == decisions
    config = small_config(tmp_path)
    assert with_applied(config, tmp_path) is config
    used = with_applied(replace(config, data=replace(config.data, corrections="gone.csv")), tmp_path)
    assert used.data.corrections == str(tmp_path / APPLIED_FILE)
    write_applied(tmp_path, ())
    assert not (tmp_path / APPLIED_FILE).exists()
