"""Comparison of runs: groups, mean and spread, baselines, the paper's cells."""

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from finished_run import finished_run

from fastcpc.cli import report as command
from fastcpc.config.load import load_config
from fastcpc.config.schema import Config
from fastcpc.errors import InputError
from fastcpc.report.html.comparison import compare, spread_of, to_csv
from fastcpc.report.html.page import comparison_page
from fastcpc.report.paper.published import CELLS, paper_cell
from fastcpc.report.results.run import Run, read_run

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return read_run(finished_run(tmp_path_factory.mktemp("compare") / "run"))


def made(run: Run, name: str, seed: int, top1: float, **sections: Any) -> Run:
    """A run on the same data with test accuracy top1 in each epoch but the first, which is 5 better."""
    config = run.config
    for section, changes in ({"run": {"seed": seed, "dir": name}} | sections).items():
        config = replace(config, **{section: replace(getattr(config, section), **changes)})
    values = [top1 + 5, *[top1] * 11]
    lines = tuple({"epoch": epoch, "test_top1": value, "auc_cpc": [0.5, 0.7]} for epoch, value in enumerate(values))
    return replace(run, path=Path(name), config=config, metrics=lines)


def two_groups(run: Run) -> list[Run]:
    return [
        made(run, "a1", 1, 90.0),
        made(run, "b1", 1, 80.0, cleaner={"kind": "none"}),
        made(run, "a2", 2, 94.0),
        made(run, "b2", 2, 81.0, cleaner={"kind": "none"}),
        made(run, "a3", 3, 95.0, data={"workers": 3}),
    ]


def test_seeds_of_a_config_form_a_group(finished: Run) -> None:
    comparison = compare(two_groups(finished), "cleaner.kind=none")
    assert comparison.keys == ["cleaner.kind"]
    assert [group.values for group in comparison.groups] == [{"cleaner.kind": "cpc_awr"}, {"cleaner.kind": "none"}]
    assert [group.seeds for group in comparison.groups] == [[1, 2, 3], [1, 2]]
    last10, best = (comparison.groups[0].spread(measure) for measure in ("last10", "best"))
    assert (last10.mean, last10.n, last10.low) == (93.0, 3, 90.0) and last10.std == pytest.approx(7**0.5)
    assert best.mean == 98.0 and str(last10) == "93.00 +- 2.65"
    delta, own = comparison.differences
    assert own is None and delta == 12.5
    assert comparison.left_out == []


def test_single_seed_has_no_spread() -> None:
    assert spread_of([3.0]).std is None and str(spread_of([3.0])) == "3.00"


def test_baseline_has_the_same_data_and_noise(finished: Run) -> None:
    runs = [
        made(finished, f"{rate}{kind}", 1, top1, noise={"rate": rate}, cleaner={"kind": kind})
        for rate, kind, top1 in (
            (0.2, "none", 70.0),
            (0.2, "gmm_awr", 75.0),
            (0.8, "none", 10.0),
            (0.8, "gmm_awr", 30.0),
        )
    ]
    comparison = compare(runs, "cleaner.kind=none")
    assert comparison.keys == ["noise.rate", "cleaner.kind"]
    assert comparison.differences == [None, 5.0, None, 20.0]
    by_run = compare(runs, runs[1])
    assert by_run.differences == [-5.0, None, -65.0, -45.0]
    with pytest.raises(InputError, match=r"--baseline cleaner\.kind=cpc_only: no finished run has it"):
        compare(runs, "cleaner.kind=cpc_only")
    with pytest.raises(InputError, match=r"--baseline cleaner\.king=none: no such setting: cleaner\.king"):
        compare(runs, "cleaner.king=none")


def test_runs_that_are_left_out_are_listed(finished: Run) -> None:
    one = made(finished, "one", 1, 90.0)
    again, running = made(finished, "again", 1, 91.0), replace(made(finished, "running", 2, 10.0), summary=None)
    comparison = compare([one, one, again, running])
    assert len(comparison.groups) == 1 and comparison.groups[0].measures["last10"] == (90.0, 91.0)
    assert comparison.left_out == [
        "one was given twice and is counted once.",
        "running is not finished (12 of 4 epochs) and is not counted.",
        "Seed 1 is in several runs (one, again): they are not independent.",
    ]
    with pytest.raises(InputError, match="none of the 1 runs is finished"):
        compare([running])


def test_label_files_and_image_folders_separate_groups(finished: Run) -> None:
    files = [made(finished, f, 1, 50.0, noise={"kind": "file", "rate": 0.0, "file": f}) for f in ("a.json", "b.json")]
    assert len(compare(files).groups) == 2
    roots = [made(finished, root, 1, 50.0, data={"root": root}) for root in ("/a", "/b")]
    assert len(compare(roots).groups) == 1
    images = [made(finished, root, 1, 50.0, data={"root": root, "name": "imagefolder"}) for root in ("/a", "/b")]
    assert compare(images).keys == ["data.root"]


def full(name: str, *settings: str) -> Config:
    return load_config([CONFIGS / f"{name}.yaml"], list(settings))


@pytest.mark.parametrize(
    ("name", "settings", "top1", "source"),
    [
        ("cifar10_sym50", [], 95.64, "CPC, Tab. 2, Ours"),
        ("cifar100_sym90", [], 54.60, "CPC, Tab. 2, Ours"),
        ("cifar100_sym90", ["cleaner.kind=cpc_agn"], 48.88, "CPC, Tab. 3"),
        ("cifar10_asym40", [], 94.73, "CPC, Tab. 2, Ours"),
        ("cifar10_asym40", ["cleaner.kind=cpc_only"], 93.92, "CPC, Tab. 5"),
        ("baselines/augdmix_cifar100_sym80", [], 66.4, "CPC, Tab. 2, AugDMix"),
        ("clothing1m", [], 75.40, "CPC, Tab. 1"),
        ("webvision", [], 79.63, "CPC, Tab. 1"),
    ],
)
def test_cells_of_the_paper(name: str, settings: list[str], top1: float, source: str) -> None:
    cell = paper_cell(full(name, *settings))
    assert cell is not None and (cell.top1, cell.source) == (top1, source)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("cifar10_sym50", ["train.epochs=30"]),
        ("cifar10_sym50", ["data.subset=1000"]),
        ("cifar10_sym50", ["noise.rate=0.4"]),
        ("cifar10_sym50", ["cleaner.kind=none"]),
        ("cifar10_sym50", ["model.name=resnet50"]),
        ("digits_sym50", []),
        ("webvision", ["data.num_classes=100"]),
    ],
)
def test_configs_without_a_cell_of_the_paper(name: str, settings: list[str]) -> None:
    assert paper_cell(full(name, *settings)) is None


def test_cells_are_unique() -> None:
    assert len({(cell.data, cell.noise, cell.rate, cell.cleaner) for cell in CELLS}) == len(CELLS)


def test_groups_are_compared_at_the_flops_of_the_cheapest_run(finished: Run) -> None:
    """The cheap run has 3e9 in all. The other spends 2e9 per epoch, so that its first epoch counts."""
    cheap, dear = made(finished, "cheap", 1, 60.0), made(finished, "dear", 1, 80.0, train={"batch_size": 16})
    cheap, dear = (
        replace(run, metrics=tuple(line | {"training_flops": (line["epoch"] + 1) * each} for line in run.metrics))
        for run, each in ((cheap, 0.25e9), (dear, 2e9))
    )
    cheap = replace(cheap, metrics=(*cheap.metrics[:-1], cheap.metrics[-1] | {"test_top1": 61.0}))
    comparison = compare([cheap, dear])
    assert comparison.flops == 3e9
    assert [group.at_budget for group in comparison.groups] == [(61.0,), (85.0,)]
    rows = list(csv.DictReader(io.StringIO(to_csv(comparison))))
    assert [(float(row["flops"]), float(row["equal_flops_mean"])) for row in rows] == [(3e9, 61.0), (3e9, 85.0)]
    page = comparison_page(comparison)
    assert "at equal FLOPs" in page and "3e+09 training FLOPs" in page and 'id="figure-flops"' in page


def test_a_group_with_a_run_without_flops_has_no_accuracy_at_equal_flops(finished: Run) -> None:
    old, new = made(finished, "old", 1, 60.0), made(finished, "new", 2, 80.0)
    new = replace(new, metrics=tuple(line | {"training_flops": 1e9} for line in new.metrics))
    comparison = compare([old, new])
    assert comparison.flops == 1e9 and comparison.groups[0].at_budget == ()
    assert compare([old]).flops is None and "at equal FLOPs" not in comparison_page(compare([old]))


def test_csv_has_a_row_per_group(finished: Run) -> None:
    text = to_csv(compare(two_groups(finished), "cleaner.kind=none"))
    first, second = csv.DictReader(io.StringIO(text))
    assert (first["cleaner.kind"], first["seeds"], first["last10_mean"]) == ("cpc_awr", "1 2 3", "93.0")
    assert (first["difference"], second["difference"], second["paper_top1"]) == ("12.5", "", "")
    assert float(first["last10_std"]) == pytest.approx(7**0.5)


def test_page_shows_groups_and_the_papers_value(finished: Run) -> None:
    paper = replace(made(finished, "c1", 1, 95.0), config=full("cifar10_sym50"))
    text = comparison_page(compare([*two_groups(finished), paper], "cleaner.kind=none"))
    assert "6 finished runs in 3 groups" in text and "93.00 +- 2.65" in text and "+12.50" in text
    assert "95.64 +- 0.01" in text and "CPC, Tab. 2, Ours" in text
    assert "figure-accuracy" in text and "figure-auc" in text


def test_command_compares_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    finished_run(Path("a"))
    finished_run(Path("<b>b"), "none")
    assert command.main(["a", "<b>b", "--baseline", "cleaner.kind=none", "--csv", "out.csv"]) == 0
    assert "written to comparison.html" in capsys.readouterr().out
    rows = list(csv.DictReader(io.StringIO(Path("out.csv").read_text())))
    assert [row["cleaner.kind"] for row in rows] == ["cpc_awr", "none"]
    assert command.main(["a", "a", "--baseline", "<b>b", "--out", "other.html"]) == 0
    text = Path("other.html").read_text()
    assert "&lt;b&gt;b" in text and "<b>b" not in text and "was given twice" in text
    assert command.main(["a", "<b>b", "--root", "/images"]) == 2
    assert command.main(["a", "--baseline", "cleaner.kind=none"]) == 2
    assert command.main(["a", "--baseline", "<b>b", "--csv", "one.csv"]) == 0
    assert len(Path("one.csv").read_text().splitlines()) == 3
