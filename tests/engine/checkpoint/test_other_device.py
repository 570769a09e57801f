"""A run on a GPU, pretended where there is none: every stage works there, and it resumes what a CPU began."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pretend_gpu import kernels_on_cpu, pretended_gpu
from small_run import StopAfter, metrics, run, small_config

from fastcpc.engine.step_loop import Stopped

SHORT: dict[str, Any] = {"epochs": 3, "lr_drop_epoch": 2}
PAST: dict[str, Any] = {"loss_history": 2}  # losses of the epoch before come from the other device


def test_run_resumes_on_another_device(tmp_path: Path) -> None:
    run(small_config(tmp_path / "whole", train=SHORT, cleaner=PAST))
    config = small_config(tmp_path / "both", train=SHORT, cleaner=PAST)
    with pytest.raises(Stopped):
        run(config, StopAfter(28))  # in the first semi-supervised pass
    with pretended_gpu() as gpu, kernels_on_cpu(), pytest.raises(Stopped):
        run(replace(config, device="cuda"), StopAfter(20))
    assert gpu.waits["synchronize"] == 1  # one scoring pass, whose seconds end with it
    run(config)
    for one, other in zip(metrics(tmp_path / "whole"), metrics(tmp_path / "both"), strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            close = key.startswith(("loss_", "kl_", "ks_"))  # sums in another order
            assert other[key] == (pytest.approx(value, rel=1e-5) if close else value), key
