"""Record what short runs compute, and check whether another version of the code is bit-identical.

    python tests/support/golden.py record [FILE.json]     without FILE: tests/assets/golden/ of this CPU and torch
    python tests/support/golden.py check [FILE.json]      prints each difference; exit code 1 where there is one

It uses the commands of fastcpc and the files of a run only: renamed modules do not touch it.
"""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import platform
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import load_file

import fastcpc
from fastcpc.cli import clean as clean_command
from fastcpc.cli import train as train_command

Record = dict[str, Any]

CONFIGS = Path(fastcpc.__file__).resolve().parents[1] / "configs"
STORED = Path(__file__).resolve().parents[1] / "assets" / "golden"
TIMES = ("seconds", "images_per_second", "data_wait")
PACKAGES = ("torch", "numpy", "scikit-learn", "pillow", "nvidia-dali-cuda130")

COMMON = (
    "run.seed=3", "device=cpu", "precision=fp32", "log.figures_every=0", "train.lr=0.02",
    "train.score_batch_size=100", "cpc.passes=4", "cpc.embedding_dim=16", "cleaner.warmup=0", "model.width=16",
    "cleaner.guard=none",
)  # fmt: skip
DIGITS = ("data.subset=240", "train.epochs=4", "train.warmup_epochs=2", "train.lr_drop_epoch=3", "train.batch_size=16")
IMAGES = (
    "model.name=preact_resnet18", "model.weights=", "data.workers=2", "data.resize=36", "data.crop=32",
    "noise.kind=asym_next", "noise.rate=0.3", "augment.strong=autoaugment", "train.epochs=3", "train.warmup_epochs=1",
    "train.lr_drop_epoch=2", "train.batch_size=4",
)  # fmt: skip
RUNS = {
    "digits_cpc_awr": ("digits_sym50.yaml", (*COMMON, *DIGITS)),
    "digits_gmm_agn": ("digits_asym40.yaml", (*COMMON, *DIGITS, "cleaner.kind=gmm_agn")),
    "images_torch": ("imagefolder.yaml", (*COMMON, *IMAGES, "data.feed=torch")),
    "images_dali": ("imagefolder.yaml", (*COMMON, *IMAGES, "data.feed=dali")),
}


def make_record() -> Record:
    """Train every run and describe it; one that needs a package that is not installed is left out."""
    versions = {name: _version(name) for name in PACKAGES}
    runs = {}
    with tempfile.TemporaryDirectory(prefix="fastcpc-golden-") as folder:
        make_images(Path(folder) / "images")
        for name in RUNS:
            if name != "images_dali" or _has_dali():
                runs[name] = _describe_run(name, Path(folder))
    return {"key": cpu_key(), "versions": versions, "runs": runs}


def differences(stored: Record, record: Record) -> list[str]:
    """One line for each value that is not exactly the stored one; runs of one side alone are left out."""
    lines = []
    for name in sorted(stored["runs"].keys() & record["runs"].keys()):
        old, new = (dict(_flat(one["runs"][name], name)) for one in (stored, record))
        for key in sorted(old.keys() | new.keys()):
            if old.get(key, "nothing") != new.get(key, "nothing"):
                lines.append(f"{key}: {old.get(key, 'nothing')} stored, {new.get(key, 'nothing')} now")
    return lines


def cpu_key() -> str:
    """What bit-identical results depend on: the CPU's name, the vector unit that torch uses, torch's version."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        entries = dict(re.findall(r"^([a-z ]+?)\s*:\s*(.+)$", text.partition("\n\n")[0], re.MULTILINE))
        cpu = entries.get("model name", cpu)
        if not re.search(r"\d", cpu):  # a virtual machine may hide which generation it is
            cpu += f" family {entries.get('cpu family')} model {entries.get('model')}"
    words = f"{cpu} {torch.backends.cpu.get_cpu_capability()} torch {torch.__version__.partition('+')[0]}"
    return re.sub(r"[^a-z0-9.]+", "-", words.lower()).strip("-")


def make_images(root: Path) -> None:
    """JPEG files of three classes that differ in their colour: 42 to train on, 30 to test."""
    draws = np.random.default_rng(5)
    for part, each in (("train", 14), ("test", 10)):
        for k, colour in enumerate(("red", "green", "blue")):
            (root / part / colour).mkdir(parents=True)
            for number in range(each):
                coarse = draws.integers(0, 256, (5, 6, 3), dtype=np.uint8)
                pixels = np.asarray(Image.fromarray(coarse).resize((50 - number, 40 + number))) // 2
                pixels[..., k] += 100
                Image.fromarray(pixels).save(root / part / colour / f"{number:02d}.jpg", quality=90)


def _describe_run(name: str, folder: Path) -> Record:
    config, settings = RUNS[name]
    run = folder / name
    root = [] if name.startswith("digits") else [f"data.root={folder / 'images'}"]
    with _one_thread(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        code = train_command.main(["--config", str(CONFIGS / config), f"run.dir={run}", *root, *settings])
    assert code == 0, said.getvalue()
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert clean_command.main([str(run)]) == 0
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    checkpoint = run / "checkpoints" / (run / "checkpoints" / "latest").read_text().strip()
    summary = json.loads((run / "summary.json").read_text())
    return {
        "metrics": [{key: line[key] for key in line if key not in TIMES} for line in lines],
        "summary": {key: summary[key] for key in summary if key not in TIMES},
        "sha256": {
            **{f"net{k}": _sha_of_tensors(load_file(checkpoint / f"net{k}.safetensors")) for k in (1, 2)},
            "state.pt": _sha_of_tensors(torch.load(checkpoint / "state.pt", weights_only=True)),
            **_shas_of_arrays(run),
        },
        "clean": _numbers(printed.getvalue().replace(str(folder), "")),
    }


def _numbers(printed: str) -> list[str]:
    """The numbers of each printed line that has some, so that another wording is no difference."""
    lines = (" ".join(re.findall(r"\d+(?:[.,]\d+)*", line)) for line in printed.splitlines())
    return [numbers for numbers in lines if numbers]


def _shas_of_arrays(run: Path) -> dict[str, str]:
    found = {"pred_probs.npy": _sha_of_array(np.load(run / "pred_probs.npy"))}
    for file in ("scores_first.npz", "scores_last.npz", "labels.npz"):
        with np.load(run / file) as arrays:
            found |= {f"{file}:{name}": _sha_of_array(arrays[name]) for name in sorted(arrays)}
    table = pq.read_table(run / "clean_probabilities.parquet")
    for name in table.column_names:
        found[f"clean_probabilities.parquet:{name}"] = _sha(repr(table[name].to_pylist()).encode())
    return found


def _sha_of_tensors(tree: Any) -> str:
    """Of the names, types, shapes and bytes of all tensors, and of the names of all other values."""
    lines = []
    for name, value in _flat(tree, ""):
        content = _sha_of_array(value.numpy()) if isinstance(value, torch.Tensor) else type(value).__name__
        lines.append(f"{name} {content}\n")
    return _sha("".join(sorted(lines)).encode())


def _sha_of_array(array: np.ndarray) -> str:
    return _sha(f"{array.dtype} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes())


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _flat(tree: Any, name: str) -> Iterator[tuple[str, Any]]:
    """(path, leaf) of nested dicts and lists."""
    if isinstance(tree, (dict, list, tuple)):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from _flat(value, f"{name}/{key}")
    else:
        yield name, tree


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)


def _has_dali() -> bool:
    return importlib.util.find_spec("nvidia") is not None and importlib.util.find_spec("nvidia.dali") is not None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def main(argv: list[str]) -> int:
    """Record or check; returns the exit code."""
    if len(argv) not in (1, 2) or argv[0] not in ("record", "check"):
        print(__doc__)
        return 2
    file = Path(argv[1]) if len(argv) == 2 else STORED / f"{cpu_key()}.json"
    stored = json.loads(file.read_text()) if argv[0] == "check" else None
    record = make_record()
    if stored is None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(record, indent=1) + "\n")
        print(f"{len(record['runs'])} runs recorded in {file}")
        return 0
    lines = [
        f"{key}: {stored[key]} stored, {record[key]} now" for key in ("key", "versions") if stored[key] != record[key]
    ]
    missing = sorted(stored["runs"].keys() ^ record["runs"].keys())
    lines += [f"{name}: not in both records" for name in missing]
    lines += differences(stored, record)
    print("\n".join(lines) or f"{len(record['runs'])} runs are bit-identical to {file}")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
