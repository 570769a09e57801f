"""Makes torch say that the CPU multiplies bfloat16, or does not, whatever CPU there is; not a test itself.

``pytest --cpu-bf16=yes`` calls it. Values are those of every CPU: torch converts where the CPU has no bfloat16.
"""

import os
from pathlib import Path
from types import ModuleType
from typing import Any

VARIABLE = "TESTS_CPU_BF16"  # how the processes that tests start learn of it; the product does not read it
AT_START = Path(__file__).parent / "at_start"
NAMES = ("amx_bf16", "avx512_bf16", "bf16")


def force_everywhere(answer: str) -> None:
    """In this process, and in every Python process that it starts. answer: yes or no."""
    import torch

    force_in(torch.cpu, answer == "yes")
    os.environ[VARIABLE] = answer
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(AT_START), *(path for path in paths if path != str(AT_START))])


def force_in(cpu: ModuleType, has_bf16: bool) -> None:
    """In torch.cpu. Of the names that stand for bfloat16 only ARM's is ever true: compilers look for the others."""
    honest = cpu.get_capabilities

    def forced() -> dict[str, Any]:
        return {**honest(), **dict.fromkeys(NAMES, False), "bf16": has_bf16}

    cpu.get_capabilities = forced  # type: ignore[attr-defined]
