"""A command starts fast: it imports no large library before arguments and settings are checked."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fastcpc.config.load import load_config, to_yaml

# every third-party package except PyYAML that fastcpc imports somewhere
HEAVY = [
    "torch", "torchvision", "timm", "sklearn", "scipy", "numpy", "pandas", "pyarrow", "matplotlib", "PIL", "tqdm",
    "tensorboard", "jinja2", "safetensors", "nvidia", "wandb", "onnx",
]  # fmt: skip

PROBE = """
import contextlib, importlib, io, json, sys, time
name, cases, heavy = json.loads(sys.argv[1])
start = time.process_time()
command = importlib.import_module(f"fastcpc.cli.{name}")
results = []
for arguments in cases:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = command.main(arguments)
    results.append([code, out.getvalue(), err.getvalue(), [module for module in heavy if module in sys.modules]])
print(json.dumps([results, time.process_time() - start]))
"""

# arguments, exit code, part of what is printed
CASES: dict[str, list[tuple[list[str], int, str]]] = {
    "train": [
        (["--help"], 0, "train.lr"), (["--print-config"], 0, "epochs: 450"), (["--list-configs"], 0, "digits_sym80"),
        (["--config", "digits_sym80", "--print-config"], 0, "digits_cnn"), ([], 2, "give --config FILE"),
        (["--no-such-option"], 2, "unrecognized arguments"), (["--config", "nowhere.yaml"], 2, "no such file"),
        (["train.epochz=3"], 2, "did you mean train.epochs?"), (["train.epochs=three"], 2, "a whole number"),
        (["cleaner.tau=2"], 2, "(0, 1)"), (["noise.rate=0.5"], 2, "noise.kind=none"),
        (["model.name=resnet5"], 2, "did you mean resnet50?"), (["data.feed=dali"], 2, "is held in memory"),
        (["--config", "imagefolder", "data.root=nowhere"], 2, "data.root=nowhere: no such folder"),
        (["noise.kind=file", "noise.file=gone.csv"], 2, "noise.file=gone.csv: no such file"),
        (["model.weights=gone.pt"], 2, "no file gone.pt"), (["run.resume=gone"], 2, "gone is not a folder"),
        (["--config", "embeddings", "data.embeddings=gone.npy"], 2, "data.embeddings=gone.npy: no such file"),
    ],
    "eval": [
        (["--help"], 0, "--split"), ([], 2, "RUN"), (["nowhere"], 2, "is not a folder"),
        (["empty"], 2, "it has no config.yaml"), (["broken"], 2, "epochz"),
        (["run", "--device", "tpu"], 2, "invalid choice"),
    ],
    "clean": [
        (["--help"], 0, "--threshold"), (["nowhere"], 2, "is not a folder"),
        (["run", "--threshold", "2"], 2, "[0, 1]"), (["run", "--out", "a.txt"], 2, "use .csv or .parquet"),
        (["run", "--out", "empty.csv/x.csv"], 2, "no such folder"),
        (["run", "--out", "a.csv", "--cleaned-list", "a.csv"], 2, "give two names"),
    ],
    "report": [
        (["--help"], 0, "--baseline"), (["nowhere"], 2, "is not a folder"), (["run", "--most", "201"], 2, "0..200"),
        (["run", "run", "--most", "3"], 2, "one RUN"), (["run", "--out", "empty"], 2, "is a folder"),
    ],
    "prepare": [
        (["--help"], 0, "--cache"), (["imagenet"], 2, "invalid choice"), (["cifar10"], 2, "data.root is empty"),
        (["imagefolder", "--root", "d", "--holdout", "2"], 2, "data.holdout"),
        (["imagefolder", "--root", "nowhere"], 2, "no such folder"),
        (["imagefolder", "--root", "d", "--jobs", "0"], 2, "a whole number above 0"),
    ],
    "export": [
        (["--help"], 0, "--onnx"), (["nowhere"], 2, "is not a folder"), (["broken"], 2, "epochz"),
    ],
    "predict": [
        (["--help"], 0, "--top"), (["nowhere", "a.png"], 2, "is not a folder"),
        (["run", "a.png"], 2, "a.png: no such file"),
        (["run", "a.png", "--top", "0"], 2, "above 0"), (["run", "a.png", "--out", "a.txt"], 2, ".parquet"),
    ],
    "embeddings.embed": [
        (["--help"], 0, "--weights"), (["images"], 2, "--out"), (["nowhere", "--out", "d"], 2, "no such folder"),
        (["empty", "--out", "d", "--size", "0"], 2, "above 0"),
        (["empty", "--out", "d", "--max-bad", "2"], 2, "[0, 1]"),
    ],
    "embeddings.audit": [
        (["--help"], 0, "--embeddings"), ([], 2, "give SOURCE"), (["nowhere"], 2, "no such folder or file"),
        (["--embeddings", "run"], 2, "--labels is missing"), (["run", "--labels", "a"], 2, "only with --embeddings"),
        (["empty", "--out", "run"], 2, "holds other files"),
        (["empty", "--test-labels", "run"], 2, "belong together"),
    ],
    "reproduce": [
        (["--help"], 0, "--scale"), (["table9"], 2, "invalid choice"), (["table2", "--scale", "small"], 2, "no scale"),
        (["table3", "--seeds", "0"], 2, "--seeds"), (["table3", "train.epochz=3"], 2, "train.epochs"),
    ],
}  # fmt: skip


def test_every_command_is_probed() -> None:
    setup = (Path(__file__).parents[2] / "setup.py").read_text(encoding="utf-8")
    commands = re.findall(r'"fastcpc-\w+ = fastcpc\.cli\.([\w.]+):main"', setup)
    assert len(commands) > 9 and sorted(commands) == sorted(CASES)


@pytest.mark.parametrize("command", CASES)
def test_help_and_wrong_arguments_import_no_large_library(command: str, tmp_path: Path) -> None:
    for folder, text in (("run", to_yaml(load_config([], []))), ("broken", "train: {epochz: 3}\n"), ("empty", "")):
        (tmp_path / folder).mkdir()
        if text:
            (tmp_path / folder / "config.yaml").write_text(text)
    cases = CASES[command]
    job = json.dumps([command, [arguments for arguments, _, _ in cases], HEAVY])
    done = subprocess.run(
        [sys.executable, "-c", PROBE, job], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    results, seconds = json.loads(done.stdout)
    print(f"fastcpc-{command}: {seconds:.2f} s of CPU for {len(cases)} starts in one process")
    for (arguments, code, part), (got_code, out, err, heavy) in zip(cases, results, strict=True):
        assert (got_code, heavy) == (code, []), (arguments, err)
        assert part in (err if code else out), (arguments, out, err)


def test_the_probe_finds_imported_libraries(tmp_path: Path) -> None:
    job = json.dumps(["train", [["--help"]], ["yaml", "argparse"]])
    done = subprocess.run(
        [sys.executable, "-c", PROBE, job], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(done.stdout)[0][0][3] == ["yaml", "argparse"]
