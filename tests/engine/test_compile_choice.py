"""What ``compile`` stands for: auto on each kind of machine, and CUDA graphs where results are read in time."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pretend_gpu import pretended_gpu
from small_run import small_config

from fastcpc import distributed
from fastcpc.config.schema import Config
from fastcpc.engine import numerics
from fastcpc.engine.launch import describe_compile
from fastcpc.engine.numerics import choose_compile, resolve_numerics
from fastcpc.errors import InputError


@pytest.mark.parametrize(
    ("device", "ranks", "compilers", "chosen"),
    [
        ("cpu", 1, True, ("false", "no GPU")),
        ("cuda", 1, True, ("default", "one GPU")),
        ("cuda", 2, True, ("false", "several processes")),
        ("cuda", 1, False, ("false", "none of gcc, clang, cc is found")),
    ],
)
def test_auto_compiles_on_one_gpu(
    device: str, ranks: int, compilers: bool, chosen: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "has_group", lambda: ranks > 1)
    monkeypatch.setattr(numerics.shutil, "which", lambda name: f"/usr/bin/{name}" if compilers else None)
    assert choose_compile("auto", torch.device(device)) == chosen
    config = replace(small_config(Path("unused")), compile="auto")
    expected = f"compile {chosen[0]} (auto: {chosen[1]}), " if device == "cuda" else ""
    assert describe_compile(config, torch.device(device)) == expected
    if compilers:
        asked = replace(config, compile="max-autotune")
        assert describe_compile(asked, torch.device(device)) == "compile max-autotune, "


def test_graphs_need_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numerics.shutil, "which", lambda name: f"/usr/bin/{name}")
    config = replace(small_config(Path("unused")), compile="graphs")
    assert choose_compile("graphs", torch.device("cuda")) == ("graphs", "")
    assert describe_compile(config, torch.device("cuda")) == "compile graphs, "
    with pretended_gpu():
        there = resolve_numerics(replace(config, device="cuda"))
    assert (there.compile, there.compiles_steps) == ("graphs", True)
    with pytest.raises(InputError, match=r"^compile=graphs: CUDA graphs need a GPU, and this run has none; use"):
        resolve_numerics(replace(config, device="cpu"))
    monkeypatch.setattr(distributed, "has_group", lambda: True)
    with pytest.raises(InputError, match=r"^compile=graphs: CUDA graphs replay the steps of one process, and ranks"):
        choose_compile("graphs", torch.device("cuda"))


@pytest.mark.parametrize(
    ("mode", "device", "asked", "marks"),
    [
        ("graphs", "cuda", {"options": {"triton.cudagraphs": True}}, 2),
        ("max-autotune", "cuda", {"mode": "max-autotune"}, 2),
        ("default", "cuda", {}, 0),
        ("max-autotune", "cpu", {"mode": "max-autotune"}, 0),
    ],
)
def test_what_torch_is_asked_for(
    mode: str, device: str, asked: dict[str, object], marks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Graphs without the search for kernels; each call of a replayed function begins a new step."""
    asks, begun = [], []

    def compiler(function: Any, **options: object) -> Any:
        asks.append(options)
        return function

    monkeypatch.setattr(torch, "compile", compiler)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: begun.append(1))
    numerics.compiled_once.cache_clear()
    function = numerics.compiled_once(len, mode, device)  # type: ignore[arg-type]
    assert function([1, 2]) == 2 and function([]) == 0
    numerics.compiled_once.cache_clear()
    assert asks == [{"fullgraph": True, "backend": "inductor", "dynamic": False, **asked}] and len(begun) == marks


def test_auto_is_resolved_before_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Config().compile == "auto"
    config = replace(small_config(Path("unused")), compile="auto", device="cuda")
    with pretended_gpu():
        numerics_there = resolve_numerics(config)
    assert (numerics_there.compile, numerics_there.compiles_steps) == ("default", True)
    here = resolve_numerics(replace(config, device="cpu"))
    assert (here.compile, here.compiles_steps) == ("false", False)


@pytest.mark.parametrize(
    ("asked", "ranks", "mode"),
    [("max-autotune", 2, "max-autotune-no-cudagraphs"), ("default", 2, None), ("max-autotune", 1, "not compiled")],
)
def test_networks_of_several_ranks_are_compiled_without_graphs(
    asked: str, ranks: int, mode: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step calls a network five times before it reads what the first call returned."""
    network, modes = torch.nn.Linear(2, 2), []
    monkeypatch.setattr(network, "compile", lambda **options: modes.append(options.get("mode")))
    numerics.Numerics(torch.device("cpu"), torch.float32, asked, compiles_steps=ranks == 1).prepare(network)
    assert modes == ([] if mode == "not compiled" else [mode])
