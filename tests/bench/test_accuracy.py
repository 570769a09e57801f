"""bench/accuracy.py: the small state by value, whole after every kill; a run in stretches closes each epoch once."""

import importlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from small_run import small_config

from fastcpc.config.load import load_config, to_yaml
from fastcpc.engine.checkpoint import CheckpointStore
from fastcpc.errors import InputError

ROOT = Path(__file__).parents[2]
LIMIT = 20_000
EPOCHS = 8


@pytest.fixture
def accuracy(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """bench/ is a folder of scripts, which import each other."""
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    for name in ("harness", "small_state", "accuracy"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module("accuracy")
    for name in ("harness", "small_state", "accuracy"):
        sys.modules.pop(name, None)


@pytest.fixture
def small_state(accuracy: ModuleType) -> ModuleType:
    return accuracy.small_state


def made_up(small_state: ModuleType, stretches: int = 1, fill: float | None = None):
    """A pair of networks whose tensors need more digits than bf16 has; fill: all of this value instead."""
    draw = torch.Generator().manual_seed(stretches)

    def tensor(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draw) if fill is None else torch.full(shape, fill)

    shapes = {"large": (300, 256), "wide_vector": (5000,), "small": (63, 65), "running_var": (256,)}
    networks = [
        {name: tensor(*shape) for name, shape in shapes.items()} | {"count": torch.tensor(7 + net)} for net in (1, 2)
    ]
    group = [{"lr": 0.02, "params": [0, 1]}]
    members = [
        {
            "optimizer": {
                "state": {0: {"momentum_buffer": tensor(300, 256)}, 1: {"momentum_buffer": tensor(9)}},
                "param_groups": group,
            },
            "cpc_optimizer": {"state": {0: {"momentum_buffer": tensor(128, 64)}}, "param_groups": group},
            "history": tensor(2, 5000),
            "partition": [torch.arange(5000) % 3 == 0, tensor(5000).double()],
        }
        for _ in networks
    ]
    state = {"members": members, "position": {"epoch": stretches, "stage": 0, "step": 0}, "past": {"seconds": 1.25}}
    return small_state.SmallState(
        epoch=stretches, config="run:\n  seed: 3\n", metrics='{"epoch": 0}\n',
        stretches=[{"seconds": number} for number in range(stretches)], summary=None, header={"model": "made_up"},
        networks=networks, state=state,
    )  # fmt: skip


def same(one, two) -> bool:
    """Whether two values are equal, tensors bit for bit and of one type."""
    if isinstance(one, torch.Tensor):
        return one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two


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
    for member in before.state["members"]:
        held = member["optimizer"]["state"]
        large = {"momentum_buffer": rounded(held[0]["momentum_buffer"])}
        kept = {0: large, 1: held[1]} if keep_momentum else {}
        expected.append({**member, "optimizer": {**member["optimizer"], "state": kept}})
    assert same(after.state, {**before.state, "members": expected})
    for name in ("epoch", "config", "metrics", "stretches", "summary", "header"):
        assert getattr(after, name) == getattr(before, name)


def test_no_file_is_larger_than_the_limit(small_state: ModuleType, tmp_path: Path) -> None:
    small_state.write(tmp_path, made_up(small_state), limit=LIMIT)
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    large = made_up(small_state).networks[0]["large"]
    assert large.bfloat16().nbytes > LIMIT  # one tensor is to be cut
    assert max(sizes.values()) == LIMIT
    assert sorted(size for name, size in sizes.items() if name.endswith(".bin"))[1:] == [LIMIT] * (len(sizes) - 4)
    assert small_state.LIMIT < 16 * 2**20


def test_nothing_is_read_where_nothing_was_written(small_state: ModuleType, tmp_path: Path) -> None:
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
        (lambda folder: (folder / "stretch_001.json").write_text("{}"), "stretch_001.json does not match its checksum"),
        (lambda folder: (folder / "stretch_001.00.bin").unlink(), "stretch_001.00.bin is missing"),
        (lambda folder: (folder / "SHA256SUMS").unlink(), "SHA256SUMS is missing"),
        (lambda folder: (folder / "SHA256SUMS").write_text("no sums\n"), "SHA256SUMS has a line that is none"),
        (unlist_the_last_part, "a part is not listed"),
    ],
)
def test_damage_is_told_in_one_line_with_exit_code_2(
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


def test_a_later_format_is_refused(small_state: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_state, "FORMAT", 2)
    small_state.write(tmp_path, made_up(small_state), limit=LIMIT)
    monkeypatch.undo()
    with pytest.raises(InputError, match="has format 2, this program reads 1"):
        small_state.read(tmp_path)


def test_a_kill_at_any_moment_of_packing_leaves_a_whole_state(small_state: ModuleType, tmp_path: Path) -> None:
    """SIGTERM as a process without a handler takes it, before and after each change to the folder."""
    former, new = (made_up(small_state, stretches, fill=float(stretches)) for stretches in (1, 2))
    kept, moment, ended = [], 0, False
    while not ended:
        shutil.rmtree(tmp_path / "state", ignore_errors=True)
        small_state.write(tmp_path / "state", former, limit=300_000)
        child = os.fork()
        if child == 0:
            kill_at(small_state, moment)
            small_state.write(tmp_path / "state", new, limit=300_000)
            os._exit(0)
        ended = not os.WIFSIGNALED(os.waitpid(child, 0)[1])
        found = small_state.read(tmp_path / "state")
        assert same(found.networks, (former, new)[found.epoch - 1].networks)
        assert found.stretches == (former, new)[found.epoch - 1].stretches
        kept.append(found.epoch)
        small_state.write(tmp_path / "state", new, limit=300_000)  # over what the kill has left
        assert small_state.read(tmp_path / "state").epoch == 2
        moment += 1
    assert kept == sorted(kept)  # the former one up to some moment, the new one from there on
    assert kept.count(1) >= 6 and kept.count(2) >= 4


def kill_at(small_state: ModuleType, moment: int) -> None:
    """Let this process get a SIGTERM at the so manieth edge of a write, a rename or a removal."""
    edges = iter(range(10**6))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def edge() -> None:
        if next(edges) == moment:
            os.kill(os.getpid(), signal.SIGTERM)

    def at_edges(function):
        def watched(*arguments, **options):
            edge()
            function(*arguments, **options)
            edge()

        return watched

    small_state.write_synced = at_edges(small_state.write_synced)
    small_state.replace_file = at_edges(small_state.replace_file)
    Path.unlink = at_edges(Path.unlink)  # type: ignore[method-assign]


def test_a_full_disk_leaves_the_former_state(
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


def test_the_schedule_is_scaled_and_says_so(accuracy: ModuleType) -> None:
    config = ROOT / "configs/cifar10_sym50.yaml"  # 450 epochs, 10 of warm-up, drop at 225, ramp of 16
    plan = accuracy.make_plan([config], [], 60)
    assert plan.schedule == "60 epochs, scaled from 450"
    assert plan.scaled == {
        "train.epochs": 60, "train.warmup_epochs": 10, "train.lr_drop_epoch": 30, "semisup.rampup_epochs": 2
    }  # fmt: skip
    assert (plan.config.train.epochs, plan.config.train.lr_drop_epoch, plan.config.semisup.rampup_epochs) == (60, 30, 2)
    assert accuracy.make_plan([config], [], 30).config.train.warmup_epochs == 6  # a fifth at most
    own_drop = accuracy.make_plan([config], ["train.lr_drop_epoch=50"], 60)
    assert own_drop.scaled["train.lr_drop_epoch"] == own_drop.config.train.lr_drop_epoch == 50
    for plain in (accuracy.make_plan([config], [], 0), accuracy.make_plan([config], [], 450)):
        assert (plain.schedule, plain.scaled) == ("450 epochs, as configured", {})
        assert plain.config == load_config([config], [])
    with pytest.raises(InputError, match=r"train.epochs: --epochs takes its place"):
        accuracy.make_plan([config], ["train.epochs=9"], 60)


def test_when_an_accuracy_was_reached(accuracy: ModuleType) -> None:
    small = made_up(accuracy.small_state, 2)
    lines = [(60.0, 10.0), (94.0, 4.0), (93.0, 5.0)]
    metrics = "".join(json.dumps({"test_top1": top1, "seconds": {"total": s}}) + "\n" for top1, s in lines)
    small = replace(small, metrics=metrics, epoch=3, stretches=[{"seconds": 30.0}, {"seconds": 12.0}])
    plan = accuracy.make_plan([ROOT / "configs/cifar10_sym50.yaml"], [], 60)
    found = accuracy.result(plan, small, {}, [50.0, 94.0, 94.5])
    assert found["reach"] == {
        "50": {"epoch": 0, "seconds": 10.0}, "94": {"epoch": 1, "seconds": 14.0}, "94.5": None
    }  # fmt: skip
    assert (found["seconds"], found["stretch_seconds"], found["finished"]) == (19.0, 42.0, False)
    assert found["curve"] == {"test_top1": [60.0, 94.0, 93.0], "seconds": [10.0, 14.0, 19.0]}


def test_when_a_stretch_ends(accuracy: ModuleType) -> None:
    lines = [json.dumps({"seconds": {"total": seconds}}).encode() for seconds in (90.0, 10.0)]
    assert not accuracy.ends_here(lines, num_epochs=9, last_epoch=3, left=12.5)
    assert accuracy.ends_here(lines, num_epochs=9, last_epoch=3, left=11.5)  # the next may take 12 s
    assert accuracy.ends_here(lines, num_epochs=9, last_epoch=2, left=1000)
    assert not accuracy.ends_here(lines, num_epochs=2, last_epoch=2, left=1)


def test_what_is_kept_is_the_end_of_an_epoch(accuracy: ModuleType, tmp_path: Path) -> None:
    """Of a run that goes on from a state, ends an epoch, and is stopped in the middle of the next."""
    config = load_config([ROOT / "configs/digits_sym80.yaml"], [f"run.dir={tmp_path / 'run'}"])
    small = made_up(accuracy.small_state, 2)
    accuracy.lay_out(tmp_path / "run", config, small)
    path, networks, state = accuracy.small_state.newest(tmp_path / "run")
    assert path.name == "epoch_0001"
    assert same([networks, state], [small.networks, small.state])
    assert accuracy.take(tmp_path / "run", config, small, {}) is None  # as it was

    store = CheckpointStore(tmp_path / "run", 0, {"model": "made_up"})
    third = made_up(accuracy.small_state, 3)
    store.save(2, third.networks, third.state, best=False)
    (tmp_path / "run/metrics.jsonl").write_text("".join(f'{{"epoch": {epoch}}}\n' for epoch in range(4)))
    environment = {"commit": "abc", "cpu": "C", "gpus": [], "packages": {}}
    (tmp_path / "run/environment.json").write_text(json.dumps({**environment, "command": ["x"]}))
    for stage, step in ((0, 5), (1, 0), (1, 5)):
        position = {"epoch": 3, "stage": stage, "step": step}
        store.save(3, small.networks, {**third.state, "position": position}, best=False)
        kept = accuracy.take(tmp_path / "run", config, small, {"seconds": 5.0})
        assert same([kept.epoch, kept.networks, kept.state], [3, third.networks, third.state])
        assert kept.metrics == '{"epoch": 0}\n{"epoch": 1}\n{"epoch": 2}\n'
        assert kept.header == {"model": "made_up"}
        assert kept.stretches == [*small.stretches, {**environment, "seconds": 5.0, "epochs": [2, 3]}]
    with pytest.raises(InputError, match=r"--run: .* is not empty"):
        accuracy.lay_out(tmp_path / "run", config, small)


@pytest.mark.slow
def test_a_run_in_two_stretches(
    accuracy: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended by SIGTERM in the middle, then by itself: each epoch is closed once; one more call trains nothing."""
    state, results = tmp_path / "state", tmp_path / "results"
    config = tmp_path / "small.yaml"
    small = small_config(tmp_path / "unused")
    small = replace(small, run=replace(small.run, dir="", name="small"), train=replace(small.train, epochs=EPOCHS))
    config.write_text(to_yaml(small))
    command = ["--config", str(config), "--state", str(state), "--results", str(results), "--reach", "1", "100"]

    assert accuracy.main([*command, "--minutes", "0.0001"]) == 1
    assert "no epoch ended in this stretch" in capsys.readouterr().err
    assert accuracy.small_state.read(state) is None

    def stop_after_an_epoch() -> None:
        live, deadline = state / "metrics.jsonl", time.monotonic() + 120
        while not live.read_bytes() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    stopper = threading.Thread(target=stop_after_an_epoch)
    stopper.start()
    assert accuracy.main(command) == 143
    stopper.join()
    first = accuracy.small_state.read(state)
    assert 1 <= first.epoch < EPOCHS
    partial = json.loads((results / "accuracy_small.json").read_text())
    assert (partial["finished"], partial["epochs"]) == (False, [first.epoch, EPOCHS])

    assert accuracy.main(["run.seed=4", *command]) == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert "is of a run with other settings: run.seed (3 there, 4 now)" in line

    assert accuracy.main(command) == 0
    last = accuracy.small_state.read(state)
    assert (state / "metrics.jsonl").read_text() == last.metrics
    assert last.metrics.startswith(first.metrics)
    assert [json.loads(line)["epoch"] for line in last.metrics.splitlines()] == list(range(EPOCHS))
    assert [stretch["epochs"] for stretch in last.stretches] == [[0, first.epoch], [first.epoch, EPOCHS]]
    assert {stretch["seed"] for stretch in last.stretches} == {3}
    content = json.loads((results / "accuracy_small.json").read_text())
    assert content["finished"] is True
    assert content["summary"]["final_top1"] == content["curve"]["test_top1"][-1]
    assert content["reach"]["100"] is None and content["reach"]["1"]["epoch"] == 0

    monkeypatch.setattr(accuracy.subprocess, "Popen", None)  # a finished run starts nothing
    assert accuracy.main(command) == 0
    assert json.loads((results / "accuracy_small.json").read_text()) == content
