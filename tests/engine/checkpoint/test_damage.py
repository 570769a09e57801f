"""Checkpoints that are damaged are found, and what is hostile in one is not run."""

import hashlib
import pickle
import random
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from made_checkpoints import save

from fastcpc.engine.checkpoint.format import load
from fastcpc.engine.checkpoint.store import CheckpointStore
from fastcpc.errors import RunError


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path, 0, {"architecture": "digits_cnn", "num_classes": "10"})


def test_any_damage_is_found(store: CheckpointStore, tmp_path: Path) -> None:
    save(store, 0)
    folder = store.folder / "epoch_0000"
    draw = random.Random(5)
    files = sorted(folder.iterdir())
    assert len(files) == 4
    for number in range(200):
        path = files[number % 4]
        whole = path.read_bytes()
        place = draw.randrange(len(whole))
        if number % 8 < 4:  # a bit that has turned over, or a file that ends too soon
            damaged = whole[:place] + bytes([whole[place] ^ 1 << draw.randrange(8)]) + whole[place + 1 :]
        else:
            damaged = whole[:place]
        path.write_bytes(damaged)
        with pytest.raises(RunError, match=r"epoch_0000 is damaged: .*(safetensors|state\.pt|SHA256SUMS)") as caught:
            load(folder)
        assert "\n" not in str(caught.value)
        path.write_bytes(whole)
    load(folder)


@pytest.mark.parametrize("name", ["net1.safetensors", "net2.safetensors", "state.pt", "SHA256SUMS"])
def test_missing_file_is_named(store: CheckpointStore, name: str) -> None:
    save(store, 0)
    (store.folder / "epoch_0000" / name).unlink()
    with pytest.raises(RunError, match=f"epoch_0000 is damaged: {name} is missing"):
        load(store.folder / "epoch_0000")


@pytest.mark.parametrize(
    "sums", ["", "\n", "x" * 64 + "  state.pt\n", "0" * 64 + "  ../../secret\n", "0" * 64 + "  state.pt\n", "\xff"]
)
def test_wrong_checksum_files_are_rejected(store: CheckpointStore, sums: str) -> None:
    save(store, 0)
    (store.folder / "epoch_0000" / "SHA256SUMS").write_text(sums, encoding="latin-1")
    with pytest.raises(RunError, match=r"is damaged: (malformed line in )?SHA256SUMS"):
        load(store.folder / "epoch_0000")


def test_text_after_the_checksums_is_rejected(store: CheckpointStore) -> None:
    save(store, 0)
    with open(store.folder / "epoch_0000" / "SHA256SUMS", "a") as file:
        file.write("rest")
    with pytest.raises(RunError, match=r"is damaged: (malformed line in )?SHA256SUMS"):
        load(store.folder / "epoch_0000")


def test_checkpoint_before_a_damaged_one_is_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = CheckpointStore(tmp_path, 1)
    save(store, 0, 1, 2)
    (store.folder / "epoch_0002" / "state.pt").write_bytes(b"")
    (store.folder / "epoch_0001" / "net2.safetensors").unlink()
    assert store.latest() == store.folder / "epoch_0000"
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "epoch_0002 is damaged: state.pt does not match" in caplog.messages[0]
    assert "epoch_0001 is damaged: net2.safetensors is missing" in caplog.messages[1]


class Hostile:
    """Unpickling it writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (Path.touch, (self.target,))


def resign(folder: Path) -> None:
    order = ["net1.safetensors", "net2.safetensors", "state.pt"]
    sums = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in order]
    (folder / "SHA256SUMS").write_text("".join(sums))


@pytest.mark.parametrize("raw", [False, True])
def test_pickle_payload_is_rejected_without_running_it(store: CheckpointStore, tmp_path: Path, raw: bool) -> None:
    save(store, 0)
    folder, trap = store.folder / "epoch_0000", tmp_path / "ran"
    if raw:
        (folder / "state.pt").write_bytes(pickle.dumps({"a": Hostile(trap)}))
    else:
        torch.save({"a": Hostile(trap)}, folder / "state.pt")
    resign(folder)
    with pytest.raises(
        RunError, match=r"state\.pt holds something other than tensors and plain values, which is not loaded"
    ):
        load(folder)
    assert not trap.exists()
    torch.load(folder / "state.pt", weights_only=False) if not raw else pickle.loads((folder / "state.pt").read_bytes())
    assert trap.exists()  # the payload works; it was not run above


def test_wrong_content_with_a_valid_checksum_is_rejected(store: CheckpointStore) -> None:
    save(store, 0)
    folder = store.folder / "epoch_0000"
    torch.save([1, 2], folder / "state.pt")
    resign(folder)
    with pytest.raises(RunError, match=r"state\.pt holds a list instead of a dict"):
        load(folder)
    torch.save(OrderedDict(a=1), folder / "state.pt")
    (folder / "net2.safetensors").write_bytes(b"\xff" * 64)
    resign(folder)
    with pytest.raises(RunError, match=r"net2\.safetensors is no safetensors file"):
        load(folder)
