"""fastcpc-train: exit codes, one line per error, signals."""

import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from fastcpc.cli import train as command
from fastcpc.cli.actions import train as action
from fastcpc.config.load import load_config
from fastcpc.config.schema import Config
from fastcpc.engine.outputs.run_dir import RunDir
from fastcpc.engine.step_loop import Stopped, StopRequest
from fastcpc.errors import InputError, RunError

REPOSITORY = Path(command.__file__).parents[2]
Train = Callable[[Config, RunDir, StopRequest], dict[str, Any]]


@pytest.fixture
def replace_train(monkeypatch: pytest.MonkeyPatch) -> Callable[[Train], None]:
    """Put another function in the place of the training itself."""
    return lambda train: monkeypatch.setattr(action, "train", lambda *given, **_: train(*given))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WORLD_SIZE", raising=False)


def test_training_leaves_new_memory_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Filling it with NaN, as deterministic algorithms do, is for tests: a pass over the memory of each new tensor."""
    found = []

    def look(_: object) -> int:
        torch.use_deterministic_algorithms(True)
        found.append(torch.utils.deterministic.fill_uninitialized_memory)  # type: ignore[attr-defined]
        return 0

    monkeypatch.setattr(action, "_run", look)
    assert action.run(lambda: pytest.fail("not read")) == 0
    assert found == [False]


def problem(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int) -> str:
    """The one line that a command ends with."""
    assert command.main(arguments) == code
    shown = capsys.readouterr()
    lines = [line for line in shown.err.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1, shown.err
    assert lines[0].startswith("fastcpc-train: error: "), shown.err
    return lines[0].removeprefix("fastcpc-train: error: ")


def write(path: str, text: str) -> str:
    Path(path).write_text(text)
    return path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], r"give --config FILE or settings as key=value; --list-configs lists configs, --help lists settings"),
        (["--config"], r"argument --config: expected one argument \(see fastcpc-train --help\)"),
        (["--epochs", "3"], r"unrecognized arguments: --epochs"),
        (["--print", "a=b"], r"unrecognized arguments: --print"),
        (["--config", "nowhere.yaml"], r"nowhere\.yaml"),
        (["train.epochz=3"], r"epochz.*epochs"),
        (["train.epochs=three"], r"train\.epochs"),
        (["cleaner.kind=magic"], r"cleaner\.kind"),
        (["train.epochs"], r"train\.epochs"),
        (["run.dir=file"], r"run\.dir: file is a file, not a folder"),
        (["run.dir=foreign"], r"run\.dir: foreign holds files that are not a run's \(thesis\.tex\)"),
        (["run.dir=file/below"], r"run\.dir: file/below cannot be used: Not a directory"),
    ],
)
def test_wrong_input_gives_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str, replace_train: Callable[[Train], None]
) -> None:
    replace_train(lambda *_: pytest.fail("must not train"))
    write("file", "x")
    Path("foreign").mkdir()
    write("foreign/thesis.tex", "x")
    assert re.search(message, problem(capsys, arguments, 2))


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2, but RANK, LOCAL_RANK, MASTER_ADDR and MASTER_PORT are not all set"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two': expected a whole number"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0': expected a whole number"),
        ({"WORLD_SIZE": "2", "RANK": "-1"}, "RANK is '-1': expected a whole number"),
    ],
)
def test_an_environment_not_set_by_torchrun_is_an_error(
    variables: dict[str, str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert problem(capsys, ["run.dir=r"], 2).startswith(message)
    assert not Path("r").exists()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert command.main(["--print-config"]) == 0


def test_every_error_has_its_line(capsys: pytest.CaptureFixture[str], replace_train: Callable[[Train], None]) -> None:
    def train(*_: object) -> dict[str, Any]:
        raise InputError("a: wrong\nb: wrong too")

    replace_train(train)
    assert command.main(["run.dir=r"]) == 2
    assert capsys.readouterr().err == "fastcpc-train: error: a: wrong\nfastcpc-train: error: b: wrong too\n"


def test_print_config_prints_the_config_of_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = write("a.yaml", "train: {epochs: 70, lr: 0.5}\n"), write("b.yaml", "train: {lr: 0.25}\n")
    arguments = ["--config", first, "--config", second, "run.seed=3", "--print-config"]
    assert command.main(arguments) == 0
    printed = write("c.yaml", capsys.readouterr().out)
    config = load_config([Path(printed)], [])
    assert (config.train.epochs, config.train.lr, config.run.seed) == (70, 0.25, 3)
    assert command.main(["run.seed=3", "--config", first, "--print-config", "--config", second]) == 0
    assert capsys.readouterr().out == Path(printed).read_text()
    assert not Path("runs").exists()


def test_dry_run_trains_nothing_and_leaves_no_folder(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, replace_train: Callable[[Train], None]
) -> None:
    replace_train(lambda *_: pytest.fail("must not train"))
    seen: list[Config] = []

    def dry_run(config: Config) -> None:
        seen.append(config)
        logging.getLogger("fastcpc").info("2 networks")

    monkeypatch.setattr(action, "dry_run", dry_run)
    assert command.main(["run.dir=r", "train.epochs=33", "--dry-run"]) == 0
    assert capsys.readouterr().out == "2 networks\n"
    assert [config.train.epochs for config in seen] == [33]
    assert not Path("r").exists()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RunError("the disk is full; make room"), "the disk is full; make room"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried ..."),
            "out of memory: lower train.score_batch_size (now 512), or start a new run",
        ),
        (
            MemoryError(),
            "out of memory: lower train.score_batch_size (now 512), or start a new run (another run.dir) "
            "with a lower train.batch_size (now 128)",
        ),
    ],
)
def test_a_failed_run_gives_one_line_and_exit_code_1(
    capsys: pytest.CaptureFixture[str], replace_train: Callable[[Train], None], error: Exception, message: str
) -> None:
    def train(*_: object) -> dict[str, Any]:
        raise error

    replace_train(train)
    assert problem(capsys, ["run.dir=r"], 1).startswith(message)
    assert message in Path("r/train.log").read_text() or not isinstance(error, RunError)


def test_out_of_memory_on_a_cpu(capsys: pytest.CaptureFixture[str], replace_train: Callable[[Train], None]) -> None:
    def train(*_: object) -> dict[str, Any]:
        torch.empty(10**15)
        return {}

    replace_train(train)
    assert problem(capsys, ["run.dir=r"], 1).startswith("out of memory: lower train.score_batch_size")


def test_an_error_in_fastcpc_keeps_its_traceback(replace_train: Callable[[Train], None]) -> None:
    def train(*_: object) -> dict[str, Any]:
        raise RuntimeError("a mistake")

    replace_train(train)
    with pytest.raises(RuntimeError, match="a mistake"):
        command.main(["run.dir=r"])
    assert "Traceback" in Path("r/train.log").read_text()


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_says_how_to_resume(
    capsys: pytest.CaptureFixture[str], replace_train: Callable[[Train], None], signum: signal.Signals, code: int
) -> None:
    def train(config: Config, folder: RunDir, stop: StopRequest, draw_figures: object) -> dict[str, Any]:
        os.kill(os.getpid(), signum)
        raise Stopped(stop.requested, 5)

    replace_train(train)
    assert command.main(["run.dir=r"]) == code
    line = f"stopped by {signum.name} at epoch 5: start the same command again to resume"
    assert capsys.readouterr().err == f"warning: {line}\n"
    assert line in Path("r/train.log").read_text()


def test_an_early_interrupt_gives_exit_code_130(
    capsys: pytest.CaptureFixture[str], replace_train: Callable[[Train], None]
) -> None:
    def train(*_: object) -> dict[str, Any]:
        raise KeyboardInterrupt

    replace_train(train)
    assert command.main(["run.dir=r"]) == 130
    assert capsys.readouterr().err == "fastcpc-train: interrupted\n"


def test_a_finished_run_is_not_trained_again(
    capsys: pytest.CaptureFixture[str], replace_train: Callable[[Train], None]
) -> None:
    calls = []

    def train(config: Config, folder: RunDir, stop: StopRequest, draw_figures: object) -> dict[str, Any]:
        calls.append(config.run.resume)
        summary = {"best_top1": 97.5, "last10_top1": 97.25, "final_top1": 97.0, "finished": len(calls) > 1}
        folder.write_json("summary.json", summary)
        return summary

    replace_train(train)
    for _ in range(3):
        assert command.main(["run.dir=r"]) == 0
    assert calls == ["auto", "auto"]
    assert (
        "r is a finished run (top-1 best 97.50, mean of the last 10 97.25, final 97.00): nothing"
        in capsys.readouterr().out
    )
    assert command.main(["run.dir=r", "run.resume=r"]) == 0  # going back to one of its checkpoints
    assert calls == ["auto", "auto", "r"]


def test_help_explains_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--help"]) == 0
    text = capsys.readouterr().out
    for section in fields(Config):
        kind = type(getattr(Config(), section.name))
        for key in [f"{section.name}.{item.name}" for item in fields(kind)] if is_dataclass(kind) else [section.name]:
            assert key in text, key


def test_a_closed_pipe_prints_no_error() -> None:
    def start(option: str) -> subprocess.Popen[str]:
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "wb") as nowhere:
            command_line = [sys.executable, "-m", "fastcpc.cli.train", option]
            return subprocess.Popen(command_line, cwd=REPOSITORY, stdout=nowhere, stderr=subprocess.PIPE, text=True)

    ends = {}
    for option, process in [(option, start(option)) for option in ("--help", "--print-config")]:
        ends[option] = (process.communicate()[1], process.returncode)
    assert ends["--print-config"] == ("", 141)
    assert ends["--help"] in (("", 0), ("", 141))  # argparse itself passes over the closed pipe of a long text


SLOW = """
import sys, time
import fastcpc.cli.actions.train as action
import fastcpc.cli.train as command
from fastcpc.engine.step_loop import Stopped
def train(config, folder, stop, draw_figures, **_):
    print("training", flush=True)
    for _ in range(600):
        if stop.requested:
            raise Stopped(stop.requested, 2)
        time.sleep(0.1)
action.train = train
sys.exit(command.main(["run.dir=" + sys.argv[1]]))
"""


def test_sigterm_ends_a_process_with_exit_code_143(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(tmp_path / "r")],
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "training\n"
        process.send_signal(signal.SIGTERM)
        assert (
            process.stderr.read() == "warning: stopped by SIGTERM at epoch 2: start the same command again to resume\n"
        )
    assert process.returncode == 143


def test_a_stopped_dry_run_is_logged(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stopped(config: object) -> None:
        raise Stopped(15, 1)

    monkeypatch.setattr(action, "dry_run", stopped)
    assert command.main(["--dry-run", "data.name=digits", "noise.kind=none"]) == 143
    assert capsys.readouterr().err == "warning: dry run stopped by SIGTERM at epoch 1; nothing is kept\n"
