"""Grids of runs: training of missing runs, interruption, tables and figures."""

import io
import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finished_run import finished_run
from PIL import Image
from several_ranks import SUPPORT, environment
from small_run import assert_same_weights, weights

from fastcpc.cli import reproduce as command
from fastcpc.config.load import load_config
from fastcpc.report.paper import grid as paper_grid
from fastcpc.report.paper import tables
from fastcpc.report.paper.experiments import EXPERIMENTS, GridRun, experiment
from fastcpc.report.paper.grid import Grid
from fastcpc.report.results.run import Run, read_run

CONFIGS = Path(__file__).parents[2] / "configs"
# a run of about a second
TINY = [
    "data.subset=120", "train.epochs=2", "train.warmup_epochs=1", "train.batch_size=32", "model.width=16",
    "cpc.embedding_dim=16", "cpc.passes=1",
]  # fmt: skip


@pytest.mark.parametrize(("name", "scale"), list(EXPERIMENTS))
def test_configs_of_all_experiments_load(name: str, scale: str, tmp_path: Path) -> None:
    chosen = experiment(name, scale)
    grid = Grid(tmp_path, CONFIGS, data_root="/data")
    assert len({(cell.row, cell.column) for cell in chosen.cells}) == len(chosen.cells)
    for cell in chosen.cells:
        config = grid.config(cell.runs(1)[0])
        assert config.cleaner.kind == cell.cleaner
        assert config.data.name == cell.row.split("_")[0] and config.data.root in ("/data", "")


def test_full_scale_tables_have_the_papers_cells() -> None:
    found = {}
    for name in ("table2", "table3", "table5"):
        for cell in experiment(name, "full").cells:
            paper = tables.paper_cell(load_config([CONFIGS / f"{cell.config}.yaml"], [f"cleaner.kind={cell.cleaner}"]))
            assert paper is not None, cell
            found[name, cell.row, cell.column] = paper.top1
    assert found["table2", "cifar100_sym90", "AugDMix"] == 41.2 and found["table2", "cifar100_sym90", "CPC"] == 54.6
    assert (
        found["table3", "webvision", "gmm_awr"] == 78.66 and found["table5", "clothing1m", "CPC without GMM"] == 74.09
    )
    assert len(found) == 18 + 16 + 12


def made(run: Run, seed: int, top1: float, **metrics: Any) -> Run:
    lines = tuple(
        {"epoch": epoch, "test_top1": top1, "auc_gmm": [0.7, 0.9], "auc_cpc": [0.8, 0.9]} | metrics
        for epoch in range(12)
    )
    config = replace(run.config, run=replace(run.config.run, seed=seed))
    return replace(run, config=config, metrics=lines)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return read_run(finished_run(tmp_path_factory.mktemp("reproduce") / "run"))


def test_table_by_value(finished: Run) -> None:
    chosen = experiment("table5", "small")
    results = {cell: [made(finished, 1, 80.0 + i), made(finished, 2, 82.0 + i)] for i, cell in enumerate(chosen.cells)}
    lines = tables.markdown(chosen, results)
    assert lines == [
        "| | baseline | CPC without GMM | CPC |",
        "|---|---|---|---|",
        "| digits, sym 80 | 81.0 +- 1.4 (80.0) | 82.0 +- 1.4 (81.0) | 83.0 +- 1.4 (82.0) |",
        "| digits, sym 50 | 84.0 +- 1.4 (83.0) | 85.0 +- 1.4 (84.0) | 86.0 +- 1.4 (85.0) |",
        "| digits, asym 40 | 87.0 +- 1.4 (86.0) | 88.0 +- 1.4 (87.0) | 89.0 +- 1.4 (88.0) |",
    ]
    content = json.loads(tables.as_json(chosen, "small", ["device=cpu"], results))
    assert content["places"][4]["last10"] == {"mean": 85.0, "std": pytest.approx(2**0.5), "min": 84.0}
    assert [run["seed"] for run in content["places"][4]["runs"]] == [1, 2]


def test_table_has_the_papers_value(finished: Run) -> None:
    chosen = experiment("table2", "full")
    results = {
        cell: [replace(made(finished, 1, 50.0), config=load_config([CONFIGS / f"{cell.config}.yaml"], []))]
        for cell in chosen.cells
    }
    lines = tables.markdown(chosen, results)
    assert "| cifar100, sym 90 | 50.0; paper 41.20 | 50.0; paper 54.60 |" in lines


@pytest.mark.parametrize(("name", "panels"), [("figure1", 4), ("figure3", 2), ("figure4", 2)])
def test_figures_are_complete(name: str, panels: int, finished: Run) -> None:
    chosen = experiment(name, "small")
    extra = {"kl_gmm_cpc": [0.2, 0.4], "agreement_gmm_cpc": [0.8, 0.9]}
    results = {cell: [made(finished, 1, 50.0, **extra), made(finished, 2, 50.0, **extra)] for cell in chosen.cells}
    svg, png = tables.figure(chosen, results)
    assert len(re.findall(r'id="axes_\d+"', svg)) == panels
    assert "var(" not in svg and "#0102" not in svg
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    assert (pixels[0, 0] == 255).all() and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
    if name == "figure3":
        assert {"cpc_awr", "gmm_agn", "digits, sym 80, 2 seeds"} <= set(re.findall(r">([^<>]+)</text>", svg))


def test_curves_in_the_json_file(finished: Run) -> None:
    chosen = experiment("figure4", "small")
    runs = [
        made(finished, seed, 50.0, kl_gmm_cpc=[0.2 * seed, 0.4 * seed], agreement_gmm_cpc=[0.8, 0.9]) for seed in (1, 2)
    ]
    results = dict.fromkeys(chosen.cells, runs)
    (cell,) = json.loads(tables.as_json(chosen, "small", [], results))["places"]
    num_epochs = len(runs[0].metrics)
    assert cell["kl_gmm_cpc"]["mean"] == pytest.approx([0.45] * num_epochs)
    assert cell["kl_gmm_cpc"]["std"] == pytest.approx([0.3 / 2**0.5] * num_epochs)
    assert cell["agreement_gmm_cpc"]["mean"] == pytest.approx([0.85] * num_epochs)
    (cell,) = json.loads(tables.as_json(chosen, "small", [], dict.fromkeys(results, runs[:1])))["places"]
    assert cell["kl_gmm_cpc"]["std"] == [None] * num_epochs


def test_dry_run_lists_missing_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        command.main(["figure3", "--scale", "small", "--seeds", "2", "--dry-run", "--out", str(tmp_path / "out")]) == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "figure3, small scale: 0 of 16 runs are finished"
    assert lines[1] == f"missing: {tmp_path}/out/runs/digits_sym80-gmm_agn-1" and len(lines) == 17
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_finished_runs_are_reused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["figure4", "--scale", "small", "--seeds", "2", "--out", str(tmp_path / "out"), *TINY]
    assert command.main(arguments) == 0
    assert "0 of 2 runs are finished\n" in capsys.readouterr().out
    written = [(tmp_path / "out" / f"figure4-small.{ending}").read_bytes() for ending in ("svg", "png", "json")]
    run = tmp_path / "out" / "runs" / "digits_asym40-cpc_agn-1"
    before = (run / "metrics.jsonl").stat().st_mtime_ns
    assert command.main(arguments) == 0
    assert "2 of 2 runs are finished\nwritten to" in capsys.readouterr().out
    assert (run / "metrics.jsonl").stat().st_mtime_ns == before
    assert [(tmp_path / "out" / f"figure4-small.{ending}").read_bytes() for ending in ("svg", "png", "json")] == written
    assert command.main([*arguments, "train.lr=0.5"]) == 2
    assert re.search(
        r"contains a run with different settings: train\.lr \(0\.02 there, 0\.5 now\)", capsys.readouterr().err
    )


@pytest.mark.slow
def test_a_stopped_grid_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run sends the grid SIGTERM after its tenth step and waits there until the grid stops it."""
    grid_command = ["figure4", "--scale", "small", "--seeds", "1", *TINY]
    run = tmp_path / "runs" / "digits_asym40-cpc_agn-1"

    class Unlucky(subprocess.Popen[bytes]):
        def __init__(self, program: list[str], env: dict[str, str], **options: Any) -> None:
            assert program[1:3] == ["-m", "fastcpc.cli.train"]
            accident = json.dumps([[-1, 10, "SIGTERM", "parent"]])
            program = [program[0], str(SUPPORT / "unlucky_train.py"), accident, *program[3:]]
            super().__init__(program, env=env | environment(), **options)

    monkeypatch.setattr(paper_grid.subprocess, "Popen", Unlucky)
    assert command.main([*grid_command, "--out", str(tmp_path)]) == 143
    monkeypatch.undo()
    shown = capsys.readouterr()
    assert "stopped; repeat the command to resume" in shown.err
    assert "1/1 digits_asym40-cpc_agn-1: ended with 143" in shown.out and not (run / "summary.json").exists()
    assert command.main([*grid_command, "--out", str(tmp_path)]) == 0
    assert command.main([*grid_command, "--out", str(tmp_path / "whole")]) == 0
    assert_same_weights(weights(run), weights(tmp_path / "whole" / "runs" / run.name))


def test_missing_data_ends_the_grid_with_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["table2", "--data-root", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out"), "--seeds", "1"]
    assert command.main(arguments) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("1 of 18 runs failed; repeat the command to try them again") and len(lines) == 2
    assert re.search(r"baselines-augdmix_cifar10_sym20-gmm_agn-1: fastcpc-train: error: .*nowhere", lines[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table4"], "argument experiment: invalid choice: 'table4'"),
        (["table2", "--scale", "small"], "table2: has no scale small; it is about CIFAR's noise rates: --scale full"),
        (["table3", "--seeds", "0"], "--seeds and --jobs must be 1 or more"),
        (
            ["table3", "--scale", "small", "--configs", "nowhere"],
            r"nowhere/digits_sym80\.yaml: no such file; give the folder",
        ),
        (["table3", "--scale", "small", "--out", "file"], "file/runs: cannot be created"),
    ],
)
def test_wrong_arguments_are_an_error_in_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    assert command.main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and re.search(f"^fastcpc-reproduce: error: .*{message}", lines[0]), lines


def test_folders_of_runs_are_unique(tmp_path: Path) -> None:
    grid = Grid(tmp_path, CONFIGS)
    grid_runs = [grid_run for chosen in EXPERIMENTS.values() for cell in chosen.cells for grid_run in cell.runs(2)]
    by_path = {grid.path(grid_run): grid_run for grid_run in grid_runs}
    assert all(by_path[grid.path(grid_run)] == grid_run for grid_run in grid_runs)
    assert grid.path(GridRun("digits_sym80", "none", 3)) == tmp_path / "digits_sym80-none-3"
