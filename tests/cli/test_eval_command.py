"""fastcpc-eval on the folder of a run."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fastcpc.cli import eval as command
from fastcpc.config.load import load_config, to_yaml
from fastcpc.config.schema import Config
from fastcpc.data.labels.noise import make_labels, take_subset
from fastcpc.data.registry import load_dataset
from fastcpc.engine.checkpoint.store import CheckpointStore
from fastcpc.models.build import build_network
from fastcpc.models.network import Network

SETTINGS = [
    "data.name=digits", "data.subset=200", "model.name=digits_cnn", "model.width=16", "augment.strong=geometric",
    "noise.kind=sym", "noise.rate=0.5", "device=cpu", "precision=fp32", "cpc.embedding_dim=16",
    "train.warmup_epochs=1",
]  # fmt: skip


def trained(epoch: int) -> dict[str, Any]:
    """The state of a checkpoint at the end of an epoch, as far as this command reads it."""
    return {"position": {"epoch": epoch + 1, "stage": 0, "step": 0}}


def make_networks(config: Config, num_classes: int = 10) -> list[Network]:
    return [
        build_network(config.model, config.cpc, num_classes=num_classes, in_channels=1, image_size=8, seed=seed)
        for seed in (5, 6)
    ]


def make_run(path: Path, *settings: str, num_classes: int = 10) -> tuple[Config, list[Network]]:
    config = load_config([], [*SETTINGS, *settings, f"run.dir={path}"])
    path.mkdir()
    (path / "config.yaml").write_text(to_yaml(config))
    networks = make_networks(config, num_classes)
    store = CheckpointStore(path, 0)
    store.save(3, [network.state_dict() for network in networks], trained(3), best=True)
    store.save(7, [network.state_dict() for network in reversed(networks)], trained(7), best=False)
    return config, networks


def top_k(scores_NK: torch.Tensor, labels_N: torch.Tensor, k: int) -> float:
    """Percent of samples with fewer than k classes above the right one."""
    right_N1 = scores_NK.gather(1, labels_N[:, None])
    return 100.0 * ((scores_NK > right_N1).sum(1) < k).double().mean().item()


@pytest.mark.parametrize("split", ["test", "train"])
def test_accuracies_against_float64(tmp_path: Path, capsys: pytest.CaptureFixture[str], split: str) -> None:
    config, networks = make_run(tmp_path / "run")
    assert command.main([str(tmp_path / "run"), "--split", split, "--checkpoint", "best"]) == 0
    content = json.loads((tmp_path / "run" / f"eval_{split}_best.json").read_text())

    dataset = load_dataset(config.data)
    labels = make_labels(dataset, config.noise, config.run.seed)
    subset, kept = take_subset(dataset, labels, config.data.subset, config.run.seed)
    part = dataset.tests["test"] if split == "test" else subset.train
    assert kept.trusted is not None
    truth = torch.from_numpy(part.labels if split == "test" else kept.trusted)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (dataset.mean, dataset.std))
    images = (part.pixels.float() / 255 - mean) / std
    with torch.no_grad():
        logits = [network.eval()(images) for network in networks]
        near = sum(network.embed(network.features(images)) @ network.prototype_matrix().T for network in networks)
    assert isinstance(near, torch.Tensor)
    rows = {"ensemble": logits[0] + logits[1], "net1": logits[0], "net2": logits[1], "prototypes": near}
    for name, scores in rows.items():
        for key, k in (("top1", 1), ("top5", 5)):
            assert content[name][key] == pytest.approx(top_k(scores, truth, k), abs=1e-9), (name, key)
    assert content["num_samples"] == len(truth) == (360 if split == "test" else 200)
    assert (content["split"], content["checkpoint"]) == (split, "epoch_0003")
    assert f"net1{content['net1']['top1']:>16.2f}{content['net1']['top5']:>8.2f}\n" in capsys.readouterr().out


def test_the_latest_checkpoint_is_the_default(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    for name in ("latest", "best", "epoch_0007"):
        assert command.main([str(tmp_path / "run"), "--checkpoint", name]) == 0
    results = {
        name: json.loads((tmp_path / "run" / f"eval_test_{name}.json").read_text())
        for name in ("latest", "best", "epoch_0007")
    }
    assert results["latest"] == results["epoch_0007"]
    assert results["latest"]["checkpoint"] == "epoch_0007"
    assert results["latest"]["net1"] == results["best"]["net2"]


def test_out_writes_elsewhere_and_leaves_the_run_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "run")
    before = sorted(tmp_path.rglob("*"))
    assert command.main([str(tmp_path / "run"), "--out", str(tmp_path / "eval.json")]) == 0
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "eval.json"])
    assert json.loads((tmp_path / "eval.json").read_text())["split"] == "test"
    assert command.main([str(tmp_path / "run"), "--out", str(tmp_path / "no" / "eval.json")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("setting", ["cleaner.kind=gmm_awr", "train.warmup_epochs=8"])
def test_untrained_prototypes_are_not_shown(setting: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "run", setting)
    assert command.main([str(tmp_path / "run")]) == 0
    assert "prototypes" not in json.loads((tmp_path / "run" / "eval_test_latest.json").read_text())
    assert "\nprototypes" not in capsys.readouterr().out


def nothing(run: Path) -> None:
    del run


def remove_config(run: Path) -> None:
    (run / "config.yaml").unlink()


def break_config(run: Path) -> None:
    (run / "config.yaml").write_text("train: {epochz: 3}\n")


def remove_checkpoints(run: Path) -> None:
    for path in sorted((run / "checkpoints").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def damage(run: Path, *epochs: int) -> None:
    for epoch in epochs:
        path = run / "checkpoints" / f"epoch_{epoch:04d}" / "net2.safetensors"
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)


def widen(run: Path) -> None:
    text = (run / "config.yaml").read_text()
    assert "width: 16" in text
    (run / "config.yaml").write_text(text.replace("width: 16", "width: 32"))


@pytest.mark.parametrize(
    ("spoil", "arguments", "code", "message"),
    [
        (nothing, [], 2, r"the following arguments are required: RUN \(see fastcpc-eval --help\)"),
        (nothing, ["nowhere"], 2, r"nowhere is not a folder; give the folder of a run"),
        (remove_config, ["run"], 2, r"run is not a run's folder: it has no config\.yaml"),
        (break_config, ["run"], 2, r"epochz"),
        (remove_checkpoints, ["run"], 2, r"run holds no checkpoint"),
        (nothing, ["run", "--split", "val"], 2, r"--split val: digits has train, test$"),
        (nothing, ["run", "--split", "../x"], 2, r"--split \.\./x: digits has train, test$"),
        (
            nothing,
            ["run", "--checkpoint", "last"],
            2,
            r"no checkpoint 'last' in run; there is latest, best, epoch_0007, epoch_0003",
        ),
        (nothing, ["run", "--device", "tpu"], 2, r"argument --device: invalid choice: 'tpu'"),
        (lambda run: damage(run, 3, 7), ["run"], 1, r"every checkpoint in run/checkpoints is damaged \(2 of 2\)"),
        (
            lambda run: damage(run, 3),
            ["run", "--checkpoint", "best"],
            1,
            r"epoch_0003 is damaged: net2\.safetensors does not match",
        ),
        (widen, ["run"], 1, r"epoch_0007 does not fit the network of the run's config\.yaml: size mismatch"),
    ],
)
def test_errors_give_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], None], arguments: list[str], code: int, message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    make_run(Path("run"))
    spoil(Path("run"))
    assert command.main(arguments) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert re.search(f"^fastcpc-eval: error: .*{message}", lines[0]), lines
    assert list(Path("run").glob("eval*")) == []


def test_another_number_of_classes_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "run", num_classes=7)
    assert command.main([str(tmp_path / "run")]) == 1
    assert "epoch_0007 was trained on 7 classes, digits has 10: the run's config.yaml" in capsys.readouterr().err
