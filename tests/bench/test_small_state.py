"""bench/small_state.py: values, errors for damaged states, and a whole state after every kill."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from made_states import made_up, same
from several_ranks import run_to_end

from fastcpc.errors import InputError

ROOT = Path(__file__).parents[2]
KILLED_STATES = ROOT / "tests" / "support" / "checkpoints" / "killed_states.py"
LIMIT = 20_000


@pytest.mark.parametrize("keep_momentum", [False, True])
def test_only_large_matrices_are_rounded(small_state: ModuleType, tmp_path: Path, keep_momentum: bool) -> None:
    before = made_up(small_state)
    small_state.write(tmp_path, before, keep_momentum=keep_momentum, limit=LIMIT)
    after = small_state.read(tmp_path)

    def rounded(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.bfloat16().float()

    for network, saved in zip(before.networks, after.networks, strict=True):
        assert not torch.equal(network["large"], rounded(network["large"]))
        assert same({**network, "large": rounded(network["large"])}, saved)
    expected = []
    for learner in before.state["members"]:
        held = learner["optimizer"]["state"]
        large = {"momentum_buffer": rounded(held[0]["momentum_buffer"])}
        kept = {0: large, 1: held[1]} if keep_momentum else {}
        expected.append({**learner, "optimizer": {**learner["optimizer"], "state": kept}})
    assert same(after.state, {**before.state, "members": expected})
    for name in ("epoch", "config", "metrics", "stretches", "summary", "header"):
        assert getattr(after, name) == getattr(before, name)


def test_files_stay_below_the_limit(small_state: ModuleType, tmp_path: Path) -> None:
    small_state.write(tmp_path, made_up(small_state), limit=LIMIT)
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    large = made_up(small_state).networks[0]["large"]
    assert large.bfloat16().nbytes > LIMIT  # one tensor is to be cut
    assert max(sizes.values()) == LIMIT
    assert sorted(size for name, size in sizes.items() if name.endswith(".bin"))[1:] == [LIMIT] * (len(sizes) - 4)
    assert small_state.LIMIT < 16 * 2**20


def test_empty_folder_has_no_state(small_state: ModuleType, tmp_path: Path) -> None:
    assert small_state.read(tmp_path / "new") is None
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 0}\n')  # of a first stretch that was killed
    assert small_state.read(tmp_path) is None
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds files that are no run's state"):
        small_state.read(tmp_path)


def cut_short(folder: Path) -> None:
    path = folder / "stretch_001.02.bin"
    path.write_bytes(path.read_bytes()[:-1])


def unlist_the_last_part(folder: Path) -> None:
    sums = folder / "SHA256SUMS"
    sums.write_text("".join(sums.read_text().splitlines(keepends=True)[:-1]))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut_short, "stretch_001.02.bin does not match its checksum"),
        (lambda folder: (folder / "SHA256SUMS").unlink(), "SHA256SUMS is missing"),
        (unlist_the_last_part, "a part is not listed"),
    ],
)
# more damage: tests/engine/checkpoint/test_damage.py, since small_state reads SHA256SUMS as checkpoints do
def test_damaged_state_gives_one_line_and_exit_code_2(
    accuracy: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage, said: str
) -> None:
    accuracy.small_state.write(tmp_path, made_up(accuracy.small_state), limit=LIMIT)
    damage(tmp_path)
    there = sorted(tmp_path.iterdir())
    assert accuracy.main(["--config", str(ROOT / "configs/digits_sym80.yaml"), "--state", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert f"{tmp_path} is damaged" in line
    assert sorted(tmp_path.iterdir()) == there


def test_later_format_is_rejected(small_state: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_state, "FORMAT", 2)
    small_state.write(tmp_path, made_up(small_state), limit=LIMIT)
    monkeypatch.undo()
    with pytest.raises(InputError, match="has format 2, this program reads 1"):
        small_state.read(tmp_path)


def test_kill_at_every_write_leaves_a_whole_state(tmp_path: Path) -> None:
    """SIGKILL at each write boundary of tests/support/checkpoints/killed_saves.py."""
    kept = json.loads(run_to_end([sys.executable, str(KILLED_STATES), str(tmp_path)]).stdout)
    assert kept == sorted(kept)  # the former one up to some moment, the new one from there on
    assert kept.count(1) >= 6 and kept.count(2) >= 4


def test_full_disk_keeps_the_former_state(
    small_state: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = made_up(small_state, 1)
    small_state.write(tmp_path, former, limit=LIMIT)
    there = sorted(tmp_path.iterdir())
    real = small_state.write_synced

    def write_synced(path: Path, data: bytes) -> None:
        if path.name.endswith(".03.bin"):
            raise OSError(28, "No space left on device")
        real(path, data)

    monkeypatch.setattr(small_state, "write_synced", write_synced)
    with pytest.raises(Exception, match="no space left on the device"):
        small_state.write(tmp_path, made_up(small_state, 2), limit=LIMIT)
    assert sorted(tmp_path.iterdir()) == there
    assert small_state.read(tmp_path).epoch == 1
