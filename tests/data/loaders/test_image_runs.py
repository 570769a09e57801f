"""Whole runs on image files."""

import json
from pathlib import Path

import pytest
from image_run import coloured_images, image_config
from small_run import StopAfter, assert_same_run, run

from fastcpc.data.loaders.dali_pipeline import dali_problem
from fastcpc.engine.step_loop import Stopped

needs_dali = pytest.mark.skipif(bool(dali_problem()), reason="needs nvidia.dali")
each_loader = pytest.mark.parametrize("name", ["torch", pytest.param("dali", marks=needs_dali)])


@each_loader
def test_run_with_a_broken_image_resumes_bit_identical(tmp_path: Path, name: str) -> None:
    """From the folder to the summary; stopped in the middle and resumed, its end is bit-identical."""
    coloured_images(tmp_path / "photos")
    broken = tmp_path / "photos" / "train" / "red" / "5.jpg"
    broken.write_bytes(broken.read_bytes()[:700])
    whole = StopAfter()
    summary = run(image_config(tmp_path / "photos", tmp_path / "whole", name), whole)
    assert summary["finished"]
    bad_list = tmp_path / "whole" / "bad_images.txt"
    assert [Path(line.split("\t")[0]).name for line in bad_list.read_text().splitlines()] == ["5.jpg"]
    log = (tmp_path / "whole" / "train.log").read_text()
    assert f"loader {name} (as asked" in log
    for looks in (whole.looks // 4, whole.looks // 3):
        with pytest.raises(Stopped):
            run(image_config(tmp_path / "photos", tmp_path / "parts", name), StopAfter(looks))
    run(image_config(tmp_path / "photos", tmp_path / "parts", name))
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    assert json.loads((tmp_path / "parts" / "summary.json").read_text())["finished"]
