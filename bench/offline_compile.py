"""Compile the Triton kernels for GPUs that this machine does not have, and read resource use.

bench/speed/kernels.py and tests/kernels call it. It needs no driver. It needs a process without TRITON_INTERPRET=1.
"""

import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product, starmap
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fastcpc.kernels.prototype_triton import (
    COLUMNS,
    KEEP_CLASSES,
    MAX_DIM,
    SCORE_COLUMNS,
    SCORE_ROWS,
    SCORE_WARPS,
    choose_tiles,
)
from fastcpc.kernels.prototype_triton_kernels import (
    ALIGNMENT,
    ANYWHERE,
    DTYPES,
    backward_kernel,
    forward_kernel,
    scores_kernel,
)
from fastcpc.kernels.views import kernel as views
from fastcpc.kernels.views import launch

ARCHITECTURES = (80, 90, 100)  # A100, H100 and H200, B200
SHARED_LIMITS = {80: 166_912, 90: 232_448, 100: 232_448}  # bytes that a program may take
POINTERS = {"label_ptr": "*i64", "pseudo_ptr": "*i64", "clean_ptr": "*u8", "ticket_ptr": "*i32"}
MATRICES = ("v_ptr", "c_ptr", "grad_v_ptr", "grad_c_ptr")


@dataclass(frozen=True)
class Configuration:
    """One kernel in a form that a launch can request."""

    kernel: str
    dtype: torch.dtype
    architecture: int
    constants: tuple[tuple[str, Any], ...]
    options: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        keep = "-keep" if dict(self.constants).get("KEEP") else ""
        chunks = "-row" if dict(self.constants)["CHUNKS"] else "-chunks"
        return f"{self.kernel}-{str(self.dtype).removeprefix('torch.')}{keep}{chunks}-sm_{self.architecture}"


@dataclass(frozen=True)
class Resources:
    """What a compiled kernel uses of a multiprocessor."""

    registers: int  # per thread
    spilled: int  # bytes per thread of stack and local memory
    shared: int  # bytes per program


def configurations(architecture: int) -> Iterator[Configuration]:
    """Every configuration that the launches can choose on ``architecture``."""
    arguments = product(DTYPES, (COLUMNS, MAX_DIM), (KEEP_CLASSES, KEEP_CLASSES + 1), (False, True), (architecture,))
    for dtype in DTYPES:
        constants: dict[str, Any] = {"CHUNKS": 0, "BD": SCORE_COLUMNS, "BM": SCORE_ROWS}
        options = {"num_warps": SCORE_WARPS}
        yield Configuration("scores", dtype, architecture, tuple(constants.items()), tuple(options.items()))
    for tiles in dict.fromkeys(starmap(choose_tiles, arguments)):
        constants = tiles.constants() | {"CHUNKS": int(tiles.single), "TILES": 0}
        for kernel, loop in (("forward", "PARTS"), ("backward", "BLOCKS")):
            options = tiles.options(backward=kernel == "backward")
            fixed = tuple((constants | {loop: 0}).items())
            yield Configuration(kernel, tiles.dot, architecture, fixed, tuple(options.items()))


def compile_offline(configuration: Configuration) -> Resources:
    """Compile to a binary for the configuration's architecture."""
    kernel = {"forward": forward_kernel, "backward": backward_kernel, "scores": scores_kernel}[configuration.kernel]
    constants = dict(configuration.constants)
    element = DTYPES[configuration.dtype].name
    types = {name: _argument_type(name, element) for name in kernel.arg_names}
    aligned = [name for name in kernel.arg_names if name.endswith("_ptr") and name not in ANYWHERE]
    aligned += [name for name in ("stride_v", "stride_c", "dim") if name in kernel.arg_names]
    return _compile(kernel, constants, types, aligned, configuration.architecture, dict(configuration.options))


@dataclass(frozen=True)
class ViewConfiguration:
    """The view kernel in a form that a launch can request. steps: 0 for weak views."""

    side: int
    channels: int
    steps: int
    dtype: torch.dtype
    channels_last: bool
    architecture: int

    def __str__(self) -> str:
        kind = f"strong{self.steps}" if self.steps else "weak"
        form = f"{str(self.dtype).removeprefix('torch.')}{'-last' if self.channels_last else ''}"
        return f"view-{kind}-{self.channels}x{self.side}-{form}-sm_{self.architecture}"


def view_configurations(architecture: int, *, largest: bool = True) -> Iterator[ViewConfiguration]:
    """Weak and strong views of CIFAR and strong views of 224 pixels; those of the largest tile take longer to compile.

    Neither type nor layout of the views changes the work.
    """
    for steps in (0, 2):
        yield ViewConfiguration(32, 3, steps, torch.float32, True, architecture)
    yield ViewConfiguration(224, 3, 2, torch.float32, True, architecture)
    if largest:
        for side in (64, launch.MAX_SIDE):
            yield ViewConfiguration(side, 3, 2, torch.bfloat16, False, architecture)


def compile_view_offline(configuration: ViewConfiguration) -> Resources:
    """Compile the view kernel to a binary for the configuration's architecture."""
    kernel = views.view_kernel
    side, channels, steps = configuration.side, configuration.channels, configuration.steps
    constants = launch.constants(side, channels, 4, steps, 128, configuration.channels_last)
    pointers = {"index_ptr": "*i64", "plan_ptr": "*i32", "code_ptr": "*i32", "pixels_ptr": "*u8", "scratch_ptr": "*u8"}
    pointers["out_ptr"] = f"*{DTYPES[configuration.dtype].name}"
    types = {name: pointers.get(name, "*fp32") if name.endswith("_ptr") else "i32" for name in kernel.arg_names}
    aligned = ["scratch_ptr", "out_ptr"]
    return _compile(kernel, constants, types, aligned, configuration.architecture, launch.options(side))


def _compile(
    kernel: Any,
    constants: dict[str, Any],
    types: dict[str, str],
    aligned: list[str],
    architecture: int,
    options: dict[str, Any],
) -> Resources:
    """types: of all arguments that are no constants. aligned: arguments that are multiples of 16."""
    signature = {name: "constexpr" if name in constants else types[name] for name in kernel.arg_names}
    attributes = {
        (place,): [["tt.divisibility", ALIGNMENT]] for place, name in enumerate(kernel.arg_names) if name in aligned
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
    registers, spilled = _usage(compiled.asm["cubin"])
    return Resources(registers, spilled, compiled.metadata.shared)


def _argument_type(name: str, element: str) -> str:
    """The type that the launch passes; ``element`` is the type of the matrices."""
    if name in MATRICES:
        return f"*{element}"
    if name.endswith("_ptr"):
        return POINTERS.get(name, "*fp32")
    return "fp32" if name in ("alpha", "neg_weight") else "i32"


def _usage(binary: bytes) -> tuple[int, int]:
    """Registers per thread, and bytes of stack and local memory, from Triton's own cuobjdump."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        listing = subprocess.run(
            [tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", listing)
    if found is None:
        raise ValueError(f"cuobjdump: expected a line of resources, got {listing!r}")
    registers, stack, local = (int(number) for number in found.groups())
    return registers, stack + local
