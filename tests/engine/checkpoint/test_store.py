"""Checkpoints: what is saved comes back, which are kept, and which of them a run resumes from."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_checkpoints import make_networks, make_state, names, save
from safetensors import safe_open
from torch import nn

from fastcpc.engine.checkpoint.format import load, metadata
from fastcpc.engine.checkpoint.resume import candidates, find_checkpoint, latest, resume_point, turns_back
from fastcpc.engine.checkpoint.store import CheckpointStore
from fastcpc.errors import InputError, RunError


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path, 0, {"architecture": "digits_cnn", "num_classes": "10"})


def test_saved_checkpoint_loads_bit_identical(store: CheckpointStore) -> None:
    networks = [
        {"w": torch.randn(5, 4), "half": torch.randn(3).bfloat16(), "none": torch.zeros(0, 3)} for _ in range(2)
    ]
    state = {
        "t": torch.tensor([float("nan"), 1e-45]),
        "i": 2**62,
        "f": 0.1,
        "list": [1, [True, None]],
        3: {"x": ("a", 2)},
    }
    path = store.save(3, networks, state, best=False)
    assert path.name == "epoch_0003"
    loaded, back = store.load(path)
    for own, other in zip(networks, loaded, strict=True):
        assert own.keys() == other.keys()
        for name in own:
            assert own[name].dtype == other[name].dtype
            assert torch.equal(own[name], other[name])
    assert torch.equal(back["t"].view(torch.int32), state["t"].view(torch.int32))
    assert {key: back[key] for key in ("i", "f", "list", 3)} == {key: state[key] for key in ("i", "f", "list", 3)}


def test_header_carries_epoch_and_architecture(store: CheckpointStore) -> None:
    save(store, 4)
    assert metadata(store.folder / "epoch_0004") == {
        "format": "pt", "architecture": "digits_cnn", "num_classes": "10", "epoch": "4",
    }  # fmt: skip
    with safe_open(store.folder / "epoch_0004" / "net2.safetensors", framework="pt") as file:
        assert file.metadata()["epoch"] == "4"


def test_equal_content_gives_equal_files(tmp_path: Path) -> None:
    header = {f"key {number}": "x" for number in range(12)}
    sums = set()
    for number in range(3):
        store = CheckpointStore(tmp_path / str(number), 0, header)
        path = store.save(5, make_networks(), {"epoch": 5, "w": torch.arange(6.0)}, best=False)
        sums.add((path / "SHA256SUMS").read_text())
    assert len(sums) == 1
    assert metadata(path) == {"format": "pt", "epoch": "5", **header}


def test_sha256sum_accepts_the_checksums(store: CheckpointStore) -> None:
    save(store, 0)
    lines = (store.folder / "epoch_0000" / "SHA256SUMS").read_text().splitlines()
    for line in lines:
        digest, name = line.split("  ")
        assert hashlib.sha256((store.folder / "epoch_0000" / name).read_bytes()).hexdigest() == digest
    assert [line.split("  ")[1] for line in lines] == ["net1.safetensors", "net2.safetensors", "state.pt"]


def test_wrapped_strided_and_shared_weights_are_saved_plainly(store: CheckpointStore) -> None:
    weight = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    network = {"module.conv._orig_mod.weight": weight, "tied": weight, "part": torch.arange(10.0)[::3]}
    loaded, _ = store.load(store.save(0, [network, network], {}, best=False))
    assert set(loaded[0]) == {"conv.weight", "tied", "part"}
    assert torch.equal(loaded[0]["conv.weight"], weight)
    assert torch.equal(loaded[0]["part"], torch.tensor([0.0, 3, 6, 9]))


def test_a_view_is_saved_without_the_rest_of_its_storage(store: CheckpointStore) -> None:
    path = store.save(0, make_networks(), {"view": torch.zeros(1_000_000)[:10]}, best=False)
    assert (path / "state.pt").stat().st_size < 10_000


def test_optimizer_state_is_accepted(store: CheckpointStore) -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    _, state = store.load(store.save(0, make_networks(), {"optimizer": optimizer.state_dict()}, best=False))
    optimizer.load_state_dict(state["optimizer"])
    assert torch.equal(optimizer.state[model.weight]["momentum_buffer"], torch.ones(2, 3))


@pytest.mark.parametrize(
    ("state", "where"),
    [
        ({"a": [0, np.float64(0.5)]}, r"state\['a'\]\[1\] is a float64"),
        ({"a": {"b": np.zeros(2)}}, r"state\['a'\]\['b'\] is a ndarray"),
        ({"a": Path("x")}, r"state\['a'\] is a PosixPath"),
        ({np.int64(1): 1}, "state has a key of type int64"),
    ],
)
def test_unsupported_values_are_not_saved(store: CheckpointStore, state: dict[Any, Any], where: str) -> None:
    with pytest.raises(TypeError, match=where):
        store.save(0, make_networks(), state, best=False)
    assert candidates(store.folder.parent) == []


def test_last_best_and_every_kth_checkpoint_are_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, 4)
    for epoch in range(11):
        store.save(epoch, make_networks(), make_state(epoch), best=epoch in (2, 5))
    assert names(store) == ["best", *(f"epoch_{epoch:04d}" for epoch in (0, 4, 5, 8, 9, 10)), "latest"]
    assert (store.folder / "latest").read_text() == "epoch_0010\n"
    assert (store.folder / "best").read_text() == "epoch_0005\n"


def test_checkpoint_of_the_same_epoch_is_replaced(store: CheckpointStore) -> None:
    save(store, 1)
    store.save(1, make_networks(9.0), {"second": 1}, best=False)
    networks, state = store.load(store.folder / "epoch_0001")
    assert state == {"second": 1}
    assert networks[0]["weight"][0, 0] == 9.0
    assert names(store) == ["epoch_0001", "latest"]


def test_turning_back_deletes_later_checkpoints(store: CheckpointStore) -> None:
    save(store, 3, 7, best=True)
    save(store, 4)
    assert names(store) == ["epoch_0003", "epoch_0004", "latest"]  # best was epoch 7, which is no more
    assert store.latest() == store.folder / "epoch_0004"


def test_kill_while_deleting_leaves_whole_checkpoints(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    save(store, 0, 1)

    def killed(path: Path, ignore_errors: bool = False) -> None:
        if path.exists():
            (path / "state.pt").unlink()
            raise KeyboardInterrupt

    monkeypatch.setattr("fastcpc.engine.checkpoint.store.shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        save(store, 2)
    assert [path.name for path in candidates(store.folder.parent)] == ["epoch_0002", "epoch_0001"]
    monkeypatch.undo()
    CheckpointStore(store.folder.parent, 0)
    assert names(store) == ["epoch_0001", "epoch_0002", "latest"]


def test_opening_deletes_files_of_a_killed_writer(store: CheckpointStore) -> None:
    save(store, 2)
    (store.folder / "epoch_0002").rename(store.folder / ".epoch_0002.old")  # killed between the two renames
    for name in (".epoch_0003.tmp", ".epoch_0001.gone"):
        (store.folder / name).mkdir()
        (store.folder / name / "net1.safetensors").write_bytes(b"half")
    (store.folder / ".latest.tmp-123").write_text("epo")
    assert latest(store.folder.parent) == store.folder / ".epoch_0002.old"  # a reader changes nothing
    reopened = CheckpointStore(store.folder.parent, 0)
    assert names(reopened) == ["epoch_0002", "latest"]
    assert load(reopened.folder / "epoch_0002")[1]["position"] == {"epoch": 2, "step": 12}


def test_named_checkpoint_is_found_or_all_are_listed(store: CheckpointStore) -> None:
    with pytest.raises(InputError, match="holds no checkpoint"):
        find_checkpoint(store.folder.parent, "latest")
    save(store, 0, best=True)
    save(store, 1)
    run = store.folder.parent
    assert [find_checkpoint(run, name).name for name in ("latest", "best", "epoch_0001")] == [
        "epoch_0001",
        "epoch_0000",
        "epoch_0001",
    ]
    with pytest.raises(
        InputError, match=r"no checkpoint 'epoch_9' in .*; there is latest, best, epoch_0001, epoch_0000$"
    ):
        find_checkpoint(run, "epoch_9")
    with pytest.raises(InputError, match=r"no checkpoint '\.\./x'"):
        find_checkpoint(run, "../x")


def test_resume_auto_and_never(store: CheckpointStore) -> None:
    assert resume_point("auto", store.folder.parent) is None
    save(store, 3)
    assert resume_point("auto", store.folder.parent) == store.folder / "epoch_0003"
    assert resume_point("never", store.folder.parent) is None
    (store.folder / "epoch_0003" / "state.pt").unlink()
    with pytest.raises(RunError, match=r"every checkpoint in .*checkpoints is damaged \(1 of 1\)"):
        resume_point("auto", store.folder.parent)


def test_resume_from_a_path(store: CheckpointStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(store, 3)
    monkeypatch.setenv("HOME", str(store.folder))
    assert resume_point("~/epoch_0003", tmp_path / "none") == store.folder / "epoch_0003"
    assert turns_back("~/epoch_0003", store.folder.parent)
    other = CheckpointStore(tmp_path / "other", 0)
    assert resume_point(str(store.folder / "epoch_0003"), other.folder.parent) == store.folder / "epoch_0003"
    assert resume_point(str(tmp_path), other.folder.parent) == store.folder / "epoch_0003"
    assert resume_point(str(store.folder / "epoch_0003"), store.folder.parent) == store.folder / "epoch_0003"
    with pytest.raises(InputError, match=r"run\.resume: .*nowhere is not a folder; give auto, never"):
        resume_point(str(tmp_path / "nowhere"), other.folder.parent)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"run\.resume: no checkpoint in .*empty; expected net1\.safetensors"):
        resume_point(str(tmp_path / "empty"), other.folder.parent)
    save(other, 0)
    # the same command again, after a stop: the run resumes where it stopped, not where it once started
    own = other.folder / "epoch_0000"
    assert resume_point(str(store.folder / "epoch_0003"), other.folder.parent) == own
    assert resume_point(str(own), other.folder.parent) == own
    assert turns_back(str(own), tmp_path / "other")
    assert not turns_back(str(store.folder / "epoch_0003"), tmp_path / "other")
    assert not turns_back("auto", tmp_path / "other")


@pytest.mark.parametrize("name", [".epoch_0001.old", "epoch_1", "epoch_0001x", "notes"])
def test_only_checkpoint_names_count(store: CheckpointStore, name: str) -> None:
    save(store, 2)
    (store.folder / name).mkdir()
    expected = [".epoch_0001.old"] if name.endswith("old") else []
    assert [path.name for path in candidates(store.folder.parent)] == ["epoch_0002", *expected]
