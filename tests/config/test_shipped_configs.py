"""Every config in configs/: it loads, survives a round trip, and has the settings that its name promises."""

from pathlib import Path

import pytest

from fastcpc.config.load import load_config, run_folder, to_yaml
from fastcpc.config.schema import Config

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))
RUNS = [path for path in FILES if path.parent.name != "base"]
CELLS = [
    *(f"cifar10_{noise}" for noise in ("sym20", "sym50", "sym80", "sym90", "asym40")),
    *(f"cifar100_{noise}" for noise in ("sym20", "sym50", "sym80", "sym90")),
]
IMAGE_FILES = ("clothing1m", "webvision", "imagefolder", "clothing_small")
LAMBDA_U = dict(zip(CELLS, (0, 25, 25, 50, 0, 25, 150, 150, 150), strict=True))


def load(name: str) -> Config:
    return load_config([CONFIGS / f"{name}.yaml"], [])


def test_every_experiment_has_its_file() -> None:
    expected = {f"{cell}.yaml" for cell in CELLS}
    expected |= {"digits_sym50.yaml", "digits_sym80.yaml", "digits_asym40.yaml", "cifar10_small.yaml"}
    expected |= {"embeddings.yaml", "finetune.yaml", "finetune_lite0.yaml"}
    expected |= {f"{name}.yaml" for name in IMAGE_FILES}
    assert {path.name for path in CONFIGS.glob("*.yaml")} == expected
    assert {path.name for path in (CONFIGS / "baselines").iterdir()} == {f"augdmix_{cell}.yaml" for cell in CELLS}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_round_trip_through_yaml(path: Path, tmp_path: Path) -> None:
    config = load_config([path], [])
    printed = tmp_path / "config.yaml"
    printed.write_text(to_yaml(config))
    again = load_config([printed], [])
    assert again == config
    assert to_yaml(again) == printed.read_text()


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_the_name_of_a_config_gives_data_noise_and_folder(path: Path) -> None:
    config = load_config([path], [])
    name = f"{path.parent.name}_{path.stem}" if path.parent.name in ("fast", "cpu") else path.stem
    assert config.run.name == name
    assert run_folder(config) == Path("runs") / name
    if path.stem in ("cifar10_small", "embeddings", "finetune", "finetune_lite0", *IMAGE_FILES):
        return
    data, noise = path.stem.removeprefix("augdmix_").split("_")
    assert config.data.name == data
    assert f"{config.noise.kind}{config.noise.rate * 100:.0f}" == noise
    assert config.train.warmup_penalty == "auto"  # on for asym, off for sym
    network = "airbench" if path.parent.name == "cpu" else "preact_resnet18"
    assert config.model.name == ("digits_cnn" if data == "digits" else network)


@pytest.mark.parametrize("path", sorted((CONFIGS / "fast").iterdir()), ids=lambda path: path.stem)
def test_a_fast_config_differs_in_its_schedule_only(path: Path) -> None:
    own, paper = load(f"fast/{path.stem}"), load(path.stem)
    assert own.train.epochs * 2 <= paper.train.epochs and own.train.schedule == "one_cycle"
    assert own.semisup.guess_batchnorm == "merged" and paper.semisup.guess_batchnorm == "per_view"
    assert (own.data, own.noise, own.model, own.cleaner, own.augment) == (
        paper.data,
        paper.noise,
        paper.model,
        paper.cleaner,
        paper.augment,
    )
    assert own.semisup.lambda_u == paper.semisup.lambda_u


@pytest.mark.parametrize("path", sorted((CONFIGS / "cpu").iterdir()), ids=lambda path: path.stem)
def test_a_cpu_config_has_the_noise_and_cleaner_of_the_paper(path: Path) -> None:
    own, paper = load(f"cpu/{path.stem}"), load(path.stem)
    assert (own.data, own.noise) == (paper.data, paper.noise)
    assert (own.cleaner.kind, own.cleaner.tau, own.cleaner.alpha) == (
        paper.cleaner.kind,
        paper.cleaner.tau,
        paper.cleaner.alpha,
    )
    assert (own.semisup.views, own.train.schedule, own.cleaner.warmup) == (1, "one_cycle", 0)
    assert 2 <= own.train.epochs - own.train.warmup_epochs < own.train.warmup_epochs


@pytest.mark.parametrize("cell", CELLS)
def test_cifar_settings_are_those_of_the_papers(cell: str) -> None:
    own, baseline = load(cell), load(f"baselines/augdmix_{cell}")
    hundred, asym = cell.startswith("cifar100"), "asym" in cell
    for config in (own, baseline):
        train = config.train
        assert (train.epochs, train.batch_size, train.lr, train.lr_drop_epoch) == (450, 128, 0.02, 225)
        assert (train.momentum, train.weight_decay, train.lr_drop_factor) == (0.9, 5e-4, 10)
        assert (config.semisup.lambda_u, config.semisup.mixup_alpha) == (LAMBDA_U[cell], 4)
        assert config.cleaner.loss_history == (5 if cell.endswith("sym90") else 1)
        assert config.data.root == "data"
        assert config.model.width == 64
        assert (config.augment.strong, config.augment.style) == ("autoaugment", "augdmix")
    assert own.cleaner.kind == ("cpc_agn" if asym else "cpc_awr")
    assert (own.train.warmup_epochs, own.cleaner.tau, own.cleaner.alpha) == (10, 0.5, 0)
    assert own.cleaner.warmup == (0.1 if hundred and cell[-2:] in ("80", "90") else 0.05)
    assert baseline.cleaner.kind == "gmm_agn"
    assert baseline.train.warmup_epochs == (30 if hundred else 10)
    assert baseline.cleaner.tau == (0.6 if cell.endswith("sym90") else 0.5)


@pytest.mark.parametrize("name", ["digits_sym50", "digits_sym80", "digits_asym40"])
def test_digits_settings(name: str) -> None:
    config = load(name)
    train, asym = config.train, "asym" in name
    assert (train.epochs, train.warmup_epochs, train.batch_size, train.lr, train.lr_drop_epoch) == (30, 5, 64, 0.02, 15)
    assert (config.cpc.passes, config.model.width, train.score_batch_size) == (32, 32, 512)
    augment = config.augment
    assert (augment.strong, augment.randaugment_ops, augment.randaugment_magnitude) == ("geometric", 2, 5)
    assert (config.semisup.lambda_u, config.semisup.mixup_alpha) == (0 if asym else 25, 4)
    assert config.cleaner.kind == ("cpc_agn" if asym else "cpc_awr")


@pytest.mark.parametrize(
    ("name", "epochs", "drop", "lr", "cleaner", "tau"),
    [("clothing1m", 80, 40, 0.002, "cpc_agn", 0.7), ("webvision", 100, 50, 0.01, "cpc_awr", 0.5)],
)
def test_settings_of_image_files_are_those_of_the_paper(
    name: str, epochs: int, drop: int, lr: float, cleaner: str, tau: float
) -> None:
    config = load(name)
    train = config.train
    assert (train.epochs, train.warmup_epochs, train.lr_drop_epoch) == (epochs, 1, drop)
    assert (train.batch_size, train.lr, train.weight_decay, train.momentum) == (32, lr, 1e-3, 0.9)
    assert (config.cleaner.kind, config.cleaner.tau, config.cleaner.alpha, config.cleaner.warmup) == (
        cleaner, tau, 1, 0.05,
    )  # fmt: skip
    assert (config.semisup.lambda_u, config.semisup.mixup_alpha, config.semisup.batches_per_epoch) == (0, 0.5, 1000)
    assert (config.data.name, config.data.resize, config.data.crop, config.data.flip) == (name, 256, 224, True)
    assert config.data.random_resized_crop == (name == "webvision")
    assert (config.model.name, config.model.weights) == ("resnet50", "IMAGENET1K_V1" if name == "clothing1m" else "")
    assert (config.augment.strong, config.augment.style) == ("autoaugment", "augdmix")
    assert config.noise.kind == "none"
    assert train.warmup_penalty == "always"
    assert config.semisup.labelled_half_only
    pool = (train.pool_batches, train.pool_balanced, config.cleaner.scored)
    assert pool == ((1000, True, "pool") if name == "clothing1m" else (1000, False, "all"))


def test_clothing_small_has_40_percent_asymmetric_noise() -> None:
    config = load("clothing_small")
    assert (config.data.name, config.noise.kind, config.noise.rate) == ("imagefolder", "asym_pairs", 0.4)
    assert config.train.warmup_penalty == "auto"
    assert (config.train.epochs, config.train.warmup_epochs, config.train.lr_drop_epoch) == (40, 10, 30)
    assert (config.semisup.lambda_u, config.semisup.batches_per_epoch) == (0, 75)


def test_cifar10_small_uses_prototypes_in_its_only_epoch_after_the_warmup() -> None:
    config = load("cifar10_small")
    assert (config.train.epochs, config.train.warmup_epochs, config.cleaner.warmup) == (2, 1, 0)
    assert (config.data.subset, config.model.width, config.train.batch_size) == (5000, 16, 64)
    assert config.cpc.embedding_dim == 64
    assert config.train.lr_drop_epoch == 2
    assert (config.cleaner.kind, config.noise.kind, config.noise.rate) == ("cpc_awr", "sym", 0.5)


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_guard_is_on_in_own_configs_and_off_in_those_of_the_paper(path: Path) -> None:
    config = load_config([path], [])
    is_own = config.data.name in ("digits", "imagefolder", "embeddings")
    assert config.cleaner.guard == ("auto" if is_own else "none")


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_the_embedding_is_smaller_than_the_features(path: Path) -> None:
    config = load_config([path], [])
    features = {"preact_resnet18": 8, "airbench": 4}.get(config.model.name)
    if features:
        assert config.cpc.embedding_dim < features * config.model.width
