"""What on_gpu.py runs: the parts of its three commands, with their time limits and their order.

``first``: correctness, then timing. The tests of kernels, loaders and runs share the GPU and the cores; a further part
fills the compiler's cache beside them. Then each bench has the GPU to itself. ``second``: accuracy on CIFAR-10, or a
profile if a part of the first command failed. ``rest``: what takes longer, in as many calls as needed.
"""

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BENCH = ROOT / "bench"
LOSS_SHAPES = ("1024x10", "8192x100", "65536x100", "65536x1000")
MIXTURES = ("50000x10", "50000x100", "1000000x14")
EPOCHS = 30  # of the accuracy run, the schedule scaled: about what four minutes allow
TO_WRITE = 0.4  # minutes between the end of a stretch's training and the end of the command


@dataclass(frozen=True)
class Part:
    """A command of Python or of another program.

    minutes: its time limit. reserved: minutes that earlier parts leave for it. beside: whether it may run beside the
    parts before it, as long as these may too.
    """

    name: str
    command: tuple[str, ...]
    minutes: float
    reserved: float = 0.0
    beside: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Setting:
    """Folders and sizes. minutes: of this call. small: sizes for a rehearsal. images: JPEG files for ``rest``."""

    out: Path
    state: Path
    data: Path | None = None
    images: Path | None = None
    epochs: int = EPOCHS
    minutes: float = 4.4
    small: bool = False

    @property
    def results(self) -> Path:
        """The folder of the JSON files."""
        return self.out / "results"


def environment(commit: str) -> dict[str, str]:
    """Variables for every part: the project need not be installed, git need not know the commit, logs are complete."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"} | ({"FASTCPC_COMMIT": commit} if commit else {})


def first(setting: Setting) -> list[Part]:
    """Tests side by side, then benches one by one."""
    narrow = ("train.batch_size=16",) if setting.small else ()
    images = {True: "128", False: "50000"}[setting.small]
    epoch = ("--epochs", "1" if setting.small else "2", "--images", images)
    step = ("--width", "16", "--batch", "16", "--steps", "2") if setting.small else ("--steps", "30")
    shapes = ("64x10", "128x100", "256x100", "256x1000") if setting.small else LOSS_SHAPES
    mixtures = ("5000x10",) if setting.small else MIXTURES
    cache = ("--epochs", "1", "--images", "128" if setting.small else "4096")
    throwaway = ("--results", str(setting.out / "throwaway"))
    return [
        _tests("tests of kernels", "tests/kernels", 4),
        _tests("tests of runs", "tests/engine", 6, "-k", "not max-autotune"),
        _tests("tests of loaders", "tests/data", 2),
        _bench("compiler cache", "epoch", 3.5, *cache, "--compile", "default", *throwaway, *narrow, beside=True),
        _bench("epoch", "epoch", 1.3, *epoch, *_to(setting), *narrow, reserved=0.9),
        _bench("epoch compiled", "epoch", 2, *epoch, "--compile", "default", *_to(setting), *narrow, reserved=1.2),
        _bench("step", "step", 1.5, *step, "--repeats", "3", *_to(setting), reserved=1),
        _bench("views", "kernels", 0.7, "--views", *_to(setting), reserved=0.3),
        _bench("mixtures", "gmm", 1, "--check-only", "--repeats", "20", "--shapes", *mixtures, *_to(setting),
               reserved=0.4),
        _bench("prototype loss", "kernels", 1.3, "--shapes", *shapes, "--architectures", *_to(setting), reserved=0.8),
    ]  # fmt: skip


def second(setting: Setting, *, profile: bool) -> list[Part]:
    """Accuracy over the training time; with ``profile`` the operations of a step instead.

    Compilation would take a third of the minutes, so the accuracy run goes without.
    """
    if profile:
        size = ("--width", "16", "--batch", "16", "--steps", "2") if setting.small else ()
        return [
            _bench(
                f"profile {name}", "profile_step", 2.4, *size, "--compile", how, "--trace",
                str(setting.out / f"trace_{name}.json.gz"), "--results", str(setting.results / name),
            )
            for name, how in (("eager", "false"), ("compiled", "default"))
        ]  # fmt: skip
    sizes = ("data.subset=160", "model.width=16", "cpc.embedding_dim=64", "train.batch_size=16")
    small = sizes if setting.small else ()
    command = (
        sys.executable, str(BENCH / "accuracy.py"), "--config", str(ROOT / "configs/fast/cifar10_sym50.yaml"),
        "--state", str(setting.state), "--minutes", f"{setting.minutes - TO_WRITE:g}", "--epochs", str(setting.epochs),
        "--reach", "80", "85", "90", "93", "--results", str(setting.results), f"data.root={setting.data}",
        "compile=false", *small,
    )  # fmt: skip
    return [Part("accuracy", command, setting.minutes)]


def rest(setting: Setting) -> list[Part]:
    """Every shape, CUDA graphs, image files, the sanitizer."""
    parts = [
        _tests("tests of max-autotune", "tests/engine", 10, "-k", "max-autotune"),
        _bench("all kernels", "kernels", 5, *_to(setting)),
        _bench("all mixtures", "gmm", 6, "--large", *_to(setting)),
    ]
    if setting.images is not None:
        size = ("--workers", "16", "--images", "4096", "--root", str(setting.images))
        parts.append(_bench("image files", "data", 6, *size, *_to(setting)))
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer:
        tests = (*_tests("", "tests/kernels", 0).command, "-x")
        parts += [
            Part(tool, (sanitizer, "--tool", tool, "--error-exitcode", "9", *tests), 8)
            for tool in ("memcheck", "racecheck")
        ]
    return parts


def _tests(name: str, folder: str, workers: int, *options: str, minutes: float = 3.5) -> Part:
    """Tests marked gpu. Warnings are no errors, also in a pytest that a test starts: a new GPU may cause new ones."""
    workers = min(workers, os.cpu_count() or 1)
    side_by_side = ("-n", str(workers), "--dist", "worksteal") if workers and find_spec("xdist") else ()
    command = (
        sys.executable, "-m", "pytest", "-m", "gpu", "-v", "-p", "no:cacheprovider", "--durations=5",
        "-o", "faulthandler_timeout=100", "--continue-on-collection-errors",
    )  # fmt: skip
    return Part(
        name, (*command, *side_by_side, *options, folder), minutes, beside=True,
        environment={"PYTEST_ADDOPTS": "-W default", "OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "4"},
    )  # fmt: skip


def _bench(name: str, script: str, minutes: float, *options: str, reserved: float = 0.0, beside: bool = False) -> Part:
    return Part(name, (sys.executable, str(BENCH / "speed" / f"{script}.py"), *options), minutes, reserved, beside)


def _to(setting: Setting) -> Sequence[str]:
    return ("--results", str(setting.results))
