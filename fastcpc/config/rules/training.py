"""Rules between the settings of optimiser, schedule and model; ``validation`` adds them to its own."""

from collections.abc import Iterator
from dataclasses import dataclass

from fastcpc.config import names
from fastcpc.config.constraints import shown
from fastcpc.config.schema import Config


@dataclass(frozen=True)
class SettingProblem:
    """A conflict. keys: its settings, first the one to change; message: one line that starts with that key."""

    keys: tuple[str, ...]
    message: str


def training_problems(config: Config) -> list[SettingProblem]:
    """Every conflict between settings of optimiser, schedule and model that are each valid."""
    return [*_schedule(config), *_optimiser(config), *_layers(config)]


def _schedule(config: Config) -> Iterator[SettingProblem]:
    train = config.train
    if train.warmup_epochs >= train.epochs and names.CLEANER_KINDS[config.cleaner.kind]:
        yield SettingProblem(
            ("train.warmup_epochs", "train.epochs", "cleaner.kind"),
            f"train.warmup_epochs={train.warmup_epochs}: must be below train.epochs={train.epochs}, or no epoch cleans "
            "labels (cleaner.kind=none trains with cross entropy only)",
        )
    if train.warmup_steps and train.schedule == "one_cycle":
        yield SettingProblem(
            ("train.warmup_steps", "train.schedule"),
            f"train.warmup_steps={train.warmup_steps}: train.schedule=one_cycle has a rise of its own; set it to 0, or "
            "use train.schedule=cosine or step",
        )


def _optimiser(config: Config) -> Iterator[SettingProblem]:
    optim = config.optim
    if optim.name == "adamw" and optim.backend == "apex":
        yield SettingProblem(
            ("optim.backend", "optim.name"),
            "optim.backend=apex: has SGD only, not optim.name=adamw; use optim.backend=auto",
        )


def _layers(config: Config) -> Iterator[SettingProblem]:
    model, optim = config.model, config.optim
    of_timm = model.name.startswith(names.TIMM_PREFIX)
    if model.freeze not in ("none", "backbone") and not _is_count(model.freeze):
        yield SettingProblem(
            ("model.freeze",),
            f"model.freeze={shown(model.freeze)}: must be none, backbone, or a number of groups of layers, 1 or more",
        )
        return
    needed = {
        f"optim.layer_decay={optim.layer_decay:g}": optim.layer_decay < 1,
        f"model.freeze={model.freeze}": _is_count(model.freeze),
        f"model.drop_path={model.drop_path:g}": model.drop_path > 0,
    }
    for text, is_set in needed.items():
        key = text.partition("=")[0]
        if is_set and not of_timm:
            default = {"optim.layer_decay": "1", "model.freeze": "none or backbone", "model.drop_path": "0"}[key]
            yield SettingProblem(
                (key, "model.name"),
                f"{text}: is for networks of timm, not for model.name={model.name}; set it to {default}, or use "
                "model.name=timm/NAME",
            )
        elif is_set and model.freeze == "backbone":
            yield SettingProblem(
                (key, "model.freeze"), f"{text}: has no effect with model.freeze=backbone; leave out one of them"
            )
    if optim.backbone_lr_scale != 1 and model.freeze == "backbone":
        yield SettingProblem(
            ("optim.backbone_lr_scale", "model.freeze"),
            f"optim.backbone_lr_scale={optim.backbone_lr_scale:g}: has no effect with model.freeze=backbone; leave out "
            "one of them",
        )
    if model.freeze != "none" and not model.weights and config.run.resume in ("auto", "never"):
        yield SettingProblem(
            ("model.freeze", "model.weights"),
            f"model.freeze={model.freeze}: model.weights is empty, so random weights would stay as they are; give "
            "model.weights, or model.freeze=none",
        )


def _is_count(freeze: str) -> bool:
    return freeze.isdecimal() and freeze.isascii() and int(freeze) > 0
