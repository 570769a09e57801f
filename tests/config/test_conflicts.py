"""Settings out of range, and conflicts between settings: one line names the setting and the fix."""

from pathlib import Path

import pytest
from config_errors import only_problem

from fastcpc.config.load import load_config

RANGES = [
    ("run.seed", "-1", "be 0 or more"), ("run.keep_every", "-1", "be 0 or more"), ("data.subset", "-1", "be 0 or more"),
    ("noise.rate", "1.5", "be in [0, 1]"), ("noise.rate", "-0.5", "be in [0, 1]"), ("noise.seed", "-2", "be "
    "-1 or more"),
    ("model.width", "8", "be 16 or more"), ("augment.randaugment_ops", "0", "be 1 or more"),
    ("augment.randaugment_magnitude", "31", "be in [0, 30]"), ("cleaner.tau", "0.0", "be in (0, 1)"),
    ("cleaner.tau", "1.0", "be in (0, 1)"), ("cleaner.alpha", "-1.0", "be 0 or more"),
    ("cleaner.warmup", "1.5", "be in [0, 1]"), ("cleaner.loss_history", "0", "be 1 or more"),
    ("cpc.embedding_dim", "0", "be 1 or more"), ("cpc.passes", "-1", "be 0 or more"),
    ("cpc.temperature", "0.0", "be above 0"), ("semisup.lambda_u", "-1.0", "be 0 or more"),
    ("semisup.rampup_epochs", "0", "be 1 or more"), ("semisup.temperature", "0.0", "be above 0"),
    ("semisup.mixup_alpha", "0.0", "be above 0"), ("semisup.batches_per_epoch", "-1", "be 0 or more"),
    ("train.epochs", "0", "be 1 or more"), ("train.warmup_epochs", "-1", "be 0 or more"),
    ("train.batch_size", "1", "be 2 or more"), ("train.lr", "0.0", "be above 0"),
    ("train.lr_drop_epoch", "-1", "be 0 or more"), ("train.lr_drop_factor", "0.5", "be 1 or more"),
    ("train.momentum", "1.0", "be in [0, 1)"), ("train.weight_decay", "-0.1", "be 0 or more"),
    ("ema.decay", "1.0", "be in [0, 1)"), ("ema.decay", "-0.1", "be in [0, 1)"), ("optim.layer_decay", "0.0", "be in "
    "(0, 1]"), ("optim.clip_norm", "-1.0", "be 0 or more"), ("optim.backbone_lr_scale", "0.0", "be above 0"),
    ("model.drop_path", "1.0", "be in [0, 1)"), ("train.warmup_steps", "-1", "be 0 or more"),
    ("train.score_batch_size", "-1", "be 0 or more"), ("train.pool_batches", "-1", "be 0 or more"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "limits"), RANGES)
def test_ranges(key: str, value: str, limits: str) -> None:
    assert only_problem([], [f"{key}={value}"]) == f"command line: {key}={value}: must {limits}"


LIMITS = [
    "noise.seed=-1", "cleaner.warmup=1", "cleaner.warmup=0", "train.momentum=0", "train.lr_drop_factor=1",
    "augment.randaugment_magnitude=30", "model.width=16", "train.batch_size=2", "cleaner.tau=1e-9",
    f"run.seed={2**63 - 1}",
]  # fmt: skip


@pytest.mark.parametrize("override", LIMITS)
def test_limits_of_ranges_are_allowed(override: str) -> None:
    load_config([], [override])


CONFLICTS = {
    "warmup_is_all": ("train.epochs=10", "train.warmup_epochs=10: must be below train.epochs=10, or no epoch cleans"),
    "pool_without_size": (
        "cleaner.scored=pool",
        "command line: cleaner.scored=pool: needs a pool, and train.pool_batches is 0",
    ),
    "pool_with_history": (
        "cleaner.scored=pool train.pool_batches=9 cleaner.loss_history=5",
        "command line: cleaner.loss_history=5: needs the losses of the same samples in every epoch",
    ),
    "file_without_path": ("noise.kind=file", "noise.file is empty: noise.kind=file needs the path of a label file"),
    "path_without_file": ("noise.file=a.npy", "command line: noise.file=a.npy: is read only with noise.kind=file"),
    "key_without_file": (
        "noise.key=worse_label",
        "command line: noise.key=worse_label: is read only with noise.kind=file",
    ),
    "rate_without_kind": (
        "noise.rate=0.5",
        "command line: noise.rate=0.5: noise.kind=none draws no noise; choose a kind",
    ),
    "rate_with_file": (
        "noise.kind=file noise.file=a.npy noise.rate=0.5",
        "command line: noise.rate=0.5: noise.kind=file draws no noise",
    ),
    "sym_without_rate": ("noise.kind=sym", "noise.rate=0: noise.kind=sym needs a rate above 0"),
    "asym_without_rate": ("noise.kind=asym", "noise.rate=0: noise.kind=asym needs a rate above 0"),
    "asym_on_cifar100": (
        "data.name=cifar100 data.root=d noise.kind=asym noise.rate=0.4",
        "command line: noise.kind=asym: is not defined for cifar100; choose asym_superclass (inside the superclass) or "
        "asym_block5 (inside blocks of five ids)",
    ),
    "superclass_on_digits": (
        "noise.kind=asym_superclass noise.rate=0.4",
        "command line: noise.kind=asym_superclass: is not defined for digits; choose asym (between similar classes)",
    ),
    "block5_on_cifar10": (
        "data.name=cifar10 data.root=d noise.kind=asym_block5 noise.rate=0.4",
        "command line: noise.kind=asym_block5: is not defined for cifar10; choose asym (between similar classes)",
    ),
    "style_of_randaugment": (
        "augment.style=augdmix augment.strong=randaugment",
        "command line: augment.style=augdmix: applies to augment.strong=autoaugment, not randaugment; use "
        "augment.style=torchvision",
    ),
    "asym_on_images": (
        "data.name=imagefolder data.root=d noise.kind=asym noise.rate=0.4",
        "command line: noise.kind=asym: is not defined for imagefolder; choose asym_pairs (noise.pairs)",
    ),
    "pairs_missing": (
        "data.name=imagefolder data.root=d noise.kind=asym_pairs noise.rate=0.4",
        "noise.pairs is empty: noise.kind=asym_pairs needs pairs of classes",
    ),
    "pairs_elsewhere": (
        "data.name=imagefolder data.root=d noise.kind=sym noise.rate=0.4 noise.pairs=a->b",
        "command line: noise.pairs=a->b: is read only with noise.kind=asym_pairs, not sym",
    ),
    "block5_on_images": (
        "data.name=webvision data.root=d noise.kind=asym_block5 noise.rate=0.4",
        "command line: noise.kind=asym_block5: is not defined for webvision; choose asym_pairs (noise.pairs)",
    ),
    "list_elsewhere": (
        "data.name=clothing1m data.root=d data.list=a.csv",
        "command line: data.list=a.csv: is read only with data.name=imagefolder, webdataset or parquet, not clothing1m",
    ),
    "flickr_elsewhere": (
        "data.name=imagefolder data.root=d data.flickr=true",
        "command line: data.flickr=true: is read only with data.name=webvision, not imagefolder",
    ),
    "index_of_digits": ("data.index=i", "command line: data.index=i: digits has no index; leave it empty"),
    "rise_of_one_cycle": (
        "train.schedule=one_cycle train.warmup_steps=5",
        "command line: train.warmup_steps=5: train.schedule=one_cycle has a rise of its own; set it to 0, or use",
    ),
    "adamw_of_apex": (
        "optim.name=adamw optim.backend=apex",
        "command line: optim.backend=apex: has SGD only, not optim.name=adamw; use optim.backend=auto",
    ),
    "layer_decay_elsewhere": (
        "optim.layer_decay=0.7",
        "command line: optim.layer_decay=0.7: is for networks of timm, not for model.name=preact_resnet18; set it to 1",
    ),
    "drop_path_elsewhere": (
        "model.drop_path=0.1",
        "command line: model.drop_path=0.1: is for networks of timm, not for model.name=preact_resnet18; set it to 0",
    ),
    "freeze_groups_elsewhere": (
        "model.freeze=2 model.weights=a.pt",
        "command line: model.freeze=2: is for networks of timm, not for model.name=preact_resnet18; set it to none or",
    ),
    "freeze_what": (
        "model.freeze=head",
        "command line: model.freeze=head: must be none, backbone, or a number of groups of layers, 1 or more",
    ),
    "freeze_random": (
        "model.freeze=backbone",
        "command line: model.freeze=backbone: model.weights is empty, so random weights would stay as they are; give",
    ),
    "frozen_with_a_rate": (
        "model.freeze=backbone model.weights=a.pt optim.backbone_lr_scale=0.1",
        "command line: optim.backbone_lr_scale=0.1: has no effect with model.freeze=backbone; leave out one of them",
    ),
    "frozen_with_layers": (
        "model.freeze=backbone model.name=timm/test_vit model.weights=a.pt optim.layer_decay=0.5",
        "command line: optim.layer_decay=0.5: has no effect with model.freeze=backbone; leave out one of them",
    ),
    "tiny_crop": (
        "data.name=imagefolder data.root=d data.crop=4",
        "command line: data.crop=4: must be 0 or 8 or more",
    ),
    "crop_beyond_resize": (
        "data.name=imagefolder data.root=d data.resize=64 data.crop=96",
        "command line: data.crop=96: must not exceed data.resize=64, the shorter side of the resized image",
    ),
    "no_root_of_photos": (
        "data.name=webvision",
        "data.root is empty: data.name=webvision needs the folder of its files",
    ),
    "no_root": ("data.name=cifar10", "data.root is empty: data.name=cifar10 needs the folder of its files"),
    "unknown_model": (
        "model.name=resnet5",
        "command line: model.name=resnet5: must be preact_resnet18, airbench, digits_cnn, small_cnn, resnet50, linear, "
        "mlp or timm/NAME (did you mean resnet50?)",
    ),
    "timm_without_name": ("model.name=timm/", "command line: model.name=timm/: must be preact_resnet18, airbench, "),
    "digits_net_elsewhere": (
        "data.name=cifar10 data.root=d model.name=digits_cnn",
        "command line: model.name=digits_cnn: is for images of up to 8 pixels, and cifar10 has 32; choose preact_",
    ),
    "weights_by_name": (
        "model.weights=IMAGENET1K_V1",
        "command line: model.weights=IMAGENET1K_V1: preact_resnet18 has no weights by name; give the path",
    ),
    "name_leaves_runs": ("run.name=../x", "command line: run.name=../x: must name a folder below runs"),
    "name_is_absolute": ("run.name=/x", "command line: run.name=/x: must name a folder below runs"),
    "name_is_empty": ("run.name=", "command line: run.name='': must name a folder below runs"),
    "no_resume": ("run.resume=", "run.resume is empty: must be auto, never, or the path"),
}  # fmt: skip


@pytest.mark.parametrize("case", CONFLICTS)
def test_conflicts(case: str) -> None:
    overrides, message = CONFLICTS[case]
    assert message in only_problem([], overrides.split(" "))


VALID = [
    "cleaner.kind=none train.epochs=3", "noise.kind=file noise.file=a.pt noise.key=worse_label",
    "noise.kind=sym noise.rate=1",
    "data.name=cifar100 data.root=d noise.kind=asym_block5 noise.rate=0.4", "model.name=resnet50 "
    "model.weights=IMAGENET1K_V1",
    "model.name=timm/vit_tiny model.weights=DEFAULT", "model.weights=a.safetensors", "model.weights=here/weights",
    "run.name= run.dir=x", "run.name=sweep/1",
]  # fmt: skip


@pytest.mark.parametrize("overrides", VALID)
def test_settings_without_conflict_load(overrides: str) -> None:
    load_config([], overrides.split(" "))


def test_a_conflict_names_the_line_of_the_setting_to_change(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("noise:\n  rate: 0.5\n")
    assert only_problem([path]).startswith(f"{path}:2: noise.rate=0.5: noise.kind=none draws no noise")


@pytest.mark.parametrize("wrong", ["noise.kind=symm", "noise.kidn=sym", "noise.kind"])
def test_a_wrong_setting_causes_no_second_error(wrong: str) -> None:
    only_problem([], ["noise.rate=0.5", wrong])
