"""Files from outside are data: reading one runs nothing that it holds, and puts no file anywhere.

The parsers of single formats have tests of their own beside them; here every kind of file that is read at all.
"""

import hashlib
import io
import json
import os
import pickle
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from finished_run import finished_run
from made_images import dataset_of, plain_files
from PIL import EpsImagePlugin
from untrained_run import untrained_run

from fastcpc.cli import export
from fastcpc.config.load import load_config
from fastcpc.data.datasets.digits import load_digits_dataset
from fastcpc.data.datasets.image_list import list_by_file
from fastcpc.data.image_files import BadImage, decode_image, read_image_header
from fastcpc.data.image_store import ImageFiles
from fastcpc.data.labels.label_file import read_label_file
from fastcpc.data.prepare.cache import open_cache
from fastcpc.data.prepare.check_images import check_image
from fastcpc.data.prepare.index import read_index
from fastcpc.engine.checkpoint.format import load
from fastcpc.engine.checkpoint.resume import find_checkpoint
from fastcpc.engine.outputs.pred_probs import PRED_PROBS_FILE
from fastcpc.engine.outputs.sample_table import CLEANING_FILE
from fastcpc.engine.outputs.score_file import LAST
from fastcpc.errors import InputError, RunError
from fastcpc.models.pretrained.weights import read_tensors
from fastcpc.report.export.model_folder import load_model
from fastcpc.report.results.run import read_pred_probs, read_run
from fastcpc.report.results.samples import read_samples


class Trap:
    """Unpickles to a call that makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (Path.touch, (self.target,))


@pytest.fixture
def trap(tmp_path: Path) -> Trap:
    return Trap(tmp_path / "sprung")


def everything(folder: Path) -> set[str]:
    """All that is in a folder, by name."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def climb(content: bytes, outside: Path) -> bytes:
    """An archive with members that lead out of any folder: upwards, absolute, and through a link."""
    buffer = io.BytesIO(content)
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(buffer, "a") as archive:
        for name in ("../up", "../../up", f"{outside}/absolute", "link/through", "a\\..\\..\\up"):
            archive.writestr(f"{name}.npy", npy(np.arange(3)))
        archive.writestr(link, str(outside))
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def resign(checkpoint: Path) -> None:
    """A checkpoint's sums made right for what its files hold now."""
    names = ("net1.safetensors", "net2.safetensors", "state.pt")
    sums = (f"{hashlib.sha256((checkpoint / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
    (checkpoint / "SHA256SUMS").write_text("".join(sums))


def test_archives_write_nothing_outside_their_folder(tmp_path: Path) -> None:
    """Nothing is ever unpacked to disk, so that the names of members lead nowhere; arrays asked for are read."""
    outside, place = tmp_path / "outside", tmp_path / "a" / "b"
    outside.mkdir()
    place.mkdir(parents=True)
    digits = load_digits_dataset()
    labels = digits.train.labels
    (place / "n.npz").write_bytes(climb(npz(labels=labels), outside))
    (place / "n.pt").write_bytes(climb(saved({"labels": torch.from_numpy(labels)}), outside))
    (place / "w.pt").write_bytes(climb(saved({"stem.weight": torch.ones(2)}), outside))
    run = finished_run(place / "run")
    for name in ("labels.npz", LAST):
        (run / name).write_bytes(climb((run / name).read_bytes(), outside))
    checkpoint = find_checkpoint(run, "latest")
    (checkpoint / "state.pt").write_bytes(climb((checkpoint / "state.pt").read_bytes(), outside))
    resign(checkpoint)
    before = everything(tmp_path)
    assert np.array_equal(read_label_file(str(place / "n.npz"), "labels", digits), labels)
    with pytest.raises(InputError):  # torch takes no archive whose members are elsewhere
        read_label_file(str(place / "n.pt"), "labels", digits)
    with pytest.raises(InputError):
        read_tensors(place / "w.pt")
    with pytest.raises(RunError):
        load(checkpoint)
    scores = read_run(run).scores(LAST)
    assert scores is not None and scores.epoch == 4
    assert everything(tmp_path) == before and not list(outside.iterdir())
    assert not [path for path in map(Path, ("/up.npy", "/absolute.npy", "up.npy")) if path.exists()]


def test_pickles_in_arrays_are_not_read(tmp_path: Path, trap: Trap) -> None:
    """In label files and in every array file of a run's folder; the traps work, as the last lines show."""
    digits, array = load_digits_dataset(), np.array([trap], object)
    cases: dict[str, tuple[bytes, Callable[[Path], Any]]] = {
        "a.npy": (npy(array), lambda path: read_label_file(str(path), "", digits)),
        "a.npz": (npz(labels=array), lambda path: read_label_file(str(path), "labels", digits)),
        "a.pt": (saved({"labels": trap}), lambda path: read_label_file(str(path), "labels", digits)),
        "b.pt": (pickle.dumps(trap), lambda path: read_label_file(str(path), "labels", digits)),
        "b.json": (pickle.dumps(trap), lambda path: read_label_file(str(path), "", digits)),
        "b.csv": (pickle.dumps(trap), lambda path: read_label_file(str(path), "", digits)),
        "w.pt": (saved({"a": trap}), read_tensors),
        "w.safetensors": (pickle.dumps(trap), read_tensors),
    }
    for name, (content, read) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError):
            read(tmp_path / name)
    run = finished_run(tmp_path / "run")
    checks: dict[str, tuple[bytes, Callable[[], Any]]] = {
        PRED_PROBS_FILE: (npy(array), lambda: read_pred_probs(read_run(run))),
        LAST: (npz(loss=array, epoch=array), lambda: read_run(run).scores(LAST)),
        CLEANING_FILE: (pickle.dumps(trap), lambda: read_samples(read_run(run))),
        "labels.npz": (npz(given=array, class_names=array), lambda: read_run(run)),
        "config.yaml": (pickle.dumps(trap), lambda: read_run(run)),
    }
    for name, (content, check) in checks.items():
        kept = (run / name).read_bytes()
        (run / name).write_bytes(content)
        with pytest.raises(InputError):
            check()
        (run / name).write_bytes(kept)
    checkpoint = find_checkpoint(run, "latest")
    for name in ("net1.safetensors", "state.pt"):
        kept = (checkpoint / name).read_bytes()
        (checkpoint / name).write_bytes(saved({"a": trap}))
        resign(checkpoint)
        with pytest.raises(RunError):
            load(checkpoint)
        (checkpoint / name).write_bytes(kept)
    assert not trap.target.exists()
    np.load(io.BytesIO(npy(array)), allow_pickle=True)
    assert trap.target.exists()


def spring(path: Path, trap: Trap) -> None:
    """Make a Parquet file's first column one of Arrow's old extension types, whose definition is a pickle."""
    table = pq.read_table(path)
    field = table.schema.field(0).with_metadata(
        {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": pickle.dumps(trap)}
    )
    schema = pa.schema([field, *(table.schema.field(i) for i in range(1, len(table.schema)))], table.schema.metadata)
    pq.write_table(pa.Table.from_arrays(table.columns, schema=schema), path)


def test_parquet_types_are_not_unpickled(tmp_path: Path, trap: Trap) -> None:
    """Indexes, caches, lists and a run's own table."""
    table = pa.table({"path": ["a.jpg", "b.jpg"], "label": ["x", "y"], "fault": ["", ""], "offset": [0, 0]})
    for name in ("list.parquet", "imagefolder.parquet"):
        pq.write_table(table, tmp_path / name)
        spring(tmp_path / name, trap)
    assert list_by_file(tmp_path, str(tmp_path / "list.parquet"), None).splits["train"].names == ("a.jpg", "b.jpg")
    with pytest.raises(InputError, match="not an index"):
        read_index(str(tmp_path), "imagefolder", str(tmp_path / "imagefolder.parquet"))
    split = dataset_of(plain_files(tmp_path, 1)).train
    (tmp_path / "imagefolder.bin").write_bytes(b"x")
    with pytest.raises(InputError, match="not a cache"):
        open_cache(tmp_path / "imagefolder.parquet", "imagefolder", 28, split, "again")  # type: ignore[arg-type]
    run = finished_run(tmp_path / "run")
    spring(run / CLEANING_FILE, trap)
    read_samples(read_run(run))
    assert not trap.target.exists()


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir [made]", "!!python/name:os.system ''", "!exec x"])
def test_tags_in_a_config_are_not_followed(tmp_path: Path, tag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(f"run:\n  name: {tag}\n")
    with pytest.raises(InputError, match="tags are not supported"):
        load_config([Path("config.yaml")], [])
    assert everything(tmp_path) == {"config.yaml"}


def test_exported_folder_runs_no_code(tmp_path: Path, trap: Trap) -> None:
    """Neither an architecture that would be fetched or imported, nor weights that are a pickle."""
    folder = untrained_run(
        tmp_path / "run", ("a", "b"), "data.name=digits", "model.name=digits_cnn", "cpc.embedding_dim=8"
    )
    assert export.main([str(folder), "--out", str(tmp_path / "m")]) == 0
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    for name in ("hf-hub:a/b", f"local-dir:{tmp_path}", "os.system", "../x", "__import__('os')", ["resnet18"]):
        (tmp_path / "m" / "config.json").write_text(json.dumps(config | {"architecture": name}))
        with pytest.raises(InputError, match="unknown architecture"):
            load_model(tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    (tmp_path / "m" / "model.safetensors").write_bytes(saved({"a": trap}))
    with pytest.raises(InputError, match="not the weights of"):
        load_model(tmp_path / "m")
    assert not trap.target.exists()


def test_image_file_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostScript called .jpg: Pillow would hand it to Ghostscript, which runs it."""
    tool = tmp_path / "gs"
    tool.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\nexec cat\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    image = tmp_path / "photo.jpg"
    image.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n")
    for read in (decode_image, read_image_header):
        with pytest.raises(BadImage, match="not an image of a known format"):
            read(image.read_bytes())
    assert check_image(ImageFiles([str(image)]), 0)[0].problem == "not an image of a known format"
    assert not (tmp_path / "sprung").exists()
    assert shutil.which("gs") == str(tool)
