"""As much of CuPy as gmm_cupy uses, on NumPy arrays: raw kernels are compiled by g++ and run on the CPU.

So the kernels' own source and the code that launches them (order, type and shape of every argument) are run and judged
by value without a GPU. What it cannot show is speed and what only a device does: memory ordering between blocks,
streams.
"""

import contextlib
import ctypes
import subprocess
from pathlib import Path

import numpy as np

SUPPORT = Path(__file__).parent
KERNELS = SUPPORT.parents[2] / "kernels"
MULTIPROCESSORS = 3


class Device(contextlib.nullcontext):
    """cupy.cuda.Device."""

    attributes = {"MultiProcessorCount": MULTIPROCESSORS}  # noqa: RUF012

    def __repr__(self):
        return "<CUDA Device 0>"


class FakeArray(np.ndarray):
    """cupy.ndarray: no NumPy array for those who ask for its module."""

    __module__ = "cupy"
    device = Device()

    def get(self):
        return np.array(self, subok=False)


def fake(array):
    """A FakeArray of the same elements."""
    return np.ascontiguousarray(array).view(FakeArray)


class FakeCupy:
    """The module; ``seed`` shuffles the order in which the kernels' threads run."""

    def __init__(self, folder, seed=0):
        self.folder, self.seed, self.cuda, self.launches = folder, seed, self, []
        self.Device = Device

    def __getattr__(self, name):
        function = getattr(np, name)

        def call(*args, **options):
            result = function(*args, **options)
            return fake(result) if isinstance(result, np.ndarray) else result

        return call

    def empty(self, shape, dtype=float):
        """Filled with what must not be read."""
        array = fake(np.empty(shape, dtype))
        array.view(np.uint8)[...] = 0xA5
        return array

    def RawModule(self, code, options, enable_cooperative_groups):  # noqa: N802
        """Compiled once a set of options."""
        assert code == (KERNELS / "gmm_em.cu").read_text()
        value = next(option for option in options if option.startswith("-DVALUE="))
        library = Path(self.folder) / f"gmm_em_{value.removeprefix('-DVALUE=')}.so"
        if not library.exists():
            command = ["g++", "-std=c++17", "-O1", "-Wall", "-Werror", "-ffp-contract=off", "-shared", "-fPIC", value]
            command += [f"-I{KERNELS}", str(SUPPORT / "cuda_on_cpu.cpp"), "-o", str(library)]
            subprocess.run(command, check=True)
        return RawModule(self, ctypes.CDLL(str(library)), enable_cooperative_groups)


class RawModule:
    """cupy.RawModule."""

    def __init__(self, cupy, library, cooperative):
        self.cupy, self.library, self.cooperative = cupy, library, cooperative

    def get_function(self, name):
        """A callable as cupy.RawKernel: grid, block, arguments."""

        def call(grid, block, arguments):
            self.cupy.launches.append((name, grid, self.cooperative))
            cells = [
                np.array([a.ctypes.data], np.uintp) if isinstance(a, np.ndarray) else np.array([a]) for a in arguments
            ]
            pointers = (ctypes.c_void_p * len(cells))(*(cell.ctypes.data for cell in cells))
            assert self.library.launch(name.encode(), *grid, *block, self.cupy.seed, pointers) == 0

        return call
