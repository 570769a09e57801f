"""Whole runs on a GPU: as on a CPU, compiled as eager, resumed as not stopped."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from image_run import coloured_images, image_config
from several_ranks import environment, torchrun
from small_run import StopAfter, assert_same_run, metrics, run, small_config

from fastcpc.config.load import to_yaml
from fastcpc.data.loaders.dali_pipeline import dali_problem
from fastcpc.distributed.process_group import SINGLE_RANK
from fastcpc.engine.step_loop import Stopped

pytestmark = pytest.mark.gpu
needs_dali = pytest.mark.skipif(bool(dali_problem()), reason="needs nvidia.dali")
each_loader = pytest.mark.parametrize("name", ["torch", pytest.param("dali", marks=needs_dali)])
POINTS = 20.0  # of test accuracy on 360 images, that four epochs may make of other roundings


@pytest.mark.parametrize(
    ("precision", "compiled"),
    [("fp32", "false"), ("bf16", "false"), ("fp32", "default"), ("bf16", "default"), ("bf16", "graphs"),
     ("fp32", "max-autotune"), ("bf16", "max-autotune")],
)  # fmt: skip
def test_run_on_a_gpu_is_close_to_a_cpu(tmp_path: Path, precision: str, compiled: str) -> None:
    run(small_config(tmp_path / "cpu"))
    config = replace(small_config(tmp_path / "gpu"), device="cuda", precision=precision, compile=compiled)  # type: ignore[arg-type]
    assert run(config)["finished"]
    ours, expected = metrics(tmp_path / "gpu"), metrics(tmp_path / "cpu")
    assert [line["phase"] for line in ours] == [line["phase"] for line in expected]
    close = 1e-3 if precision == "fp32" else 5e-2
    assert ours[0]["loss_total"] == pytest.approx(expected[0]["loss_total"], rel=close)
    for line, other in zip(ours, expected, strict=True):
        assert abs(line["test_top1"] - other["test_top1"]) < POINTS


def test_stopped_run_on_a_gpu_equals_the_whole_run(tmp_path: Path) -> None:
    settings = {"device": "cuda", "precision": "fp32"}
    whole = small_config(tmp_path / "whole", run={"deterministic": True})
    stop = StopAfter()
    run(replace(whole, **settings), stop)  # type: ignore[arg-type]
    parts = replace(small_config(tmp_path / "parts", run={"deterministic": True}), **settings)  # type: ignore[arg-type]
    for looks in (stop.looks // 3, stop.looks // 4):
        with pytest.raises(Stopped):
            run(parts, StopAfter(looks))
    run(parts)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@each_loader
def test_run_on_image_files(tmp_path: Path, name: str) -> None:
    coloured_images(tmp_path / "photos")
    config = replace(image_config(tmp_path / "photos", tmp_path / "run", name), device="cuda", compile="default")
    assert run(config)["finished"]


def test_run_over_nccl_on_one_gpu(tmp_path: Path) -> None:
    """In a process group of one rank, made for this test."""
    alone, file = small_config(tmp_path / "alone"), tmp_path / "config.yaml"
    run(replace(alone, device="cuda"))
    file.write_text(to_yaml(replace(small_config(tmp_path / "nccl"), device="cuda")))
    command = torchrun(1, "-m", "fastcpc.cli.train", "--config", str(file))
    done = subprocess.run(
        command, env=environment() | {SINGLE_RANK: "1"}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "1 process (nccl)" in (tmp_path / "nccl" / "train.log").read_text()
    ours, expected = metrics(tmp_path / "nccl"), metrics(tmp_path / "alone")
    assert ours[0]["loss_total"] == pytest.approx(expected[0]["loss_total"], rel=1e-3)
    assert abs(ours[-1]["test_top1"] - expected[-1]["test_top1"]) < POINTS
