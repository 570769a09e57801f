"""Which settings may change when a run is resumed, and which must match a checkpoint."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from fastcpc.cleaner.registry import prototype_similarity
from fastcpc.config.load import load_config
from fastcpc.config.normalise import AUTO, DATA
from fastcpc.config.schema import Config
from fastcpc.config.sizes import crop_of, interpolation_of, resize_of
from fastcpc.engine.checkpoint.format import CheckpointState
from fastcpc.errors import InputError

# Settings that may change when a run is resumed: paths and devices, not what is computed. (Rounding may differ on
# another device, compiled, or with another size of scoring batches.)
FREE_KEYS = frozenset(
    {
        "run.resume", "run.keep_every", "run.dir", "run.name", "device", "compile", "data.root", "data.embeddings",
        "data.labels", "data.test_embeddings", "data.test_labels", "data.corrections", "noise.file",
        "train.score_batch_size", "parallel.timeout", "log.figures_every", "log.wandb",
    }
)  # fmt: skip
INTERPOLATION = "data.interpolation"
HEAD = ("cpc.embedding_dim", "cpc.projector", "cpc.normalise")  # settings of the prototype head
# Settings that must match when another run starts from a checkpoint.
BINDING = ("data.", "noise.", "model.", *HEAD, "run.seed", "optim.")
# Exceptions: the loader, the initial weights of the networks, and what leaves the state of the optimiser as it is.
LOOSE = ("data.feed", "model.weights", "model.drop_path", "optim.backend", "optim.clip_norm")


def check_same_samples(saved: str, config: Config, checkpoint: Path) -> None:
    """InputError when a checkpoint to start from has other samples, labels or networks.

    saved: the YAML of the checkpoint's config. Schedule, cleaner, losses, augmentation and the average of weights may
    differ. So may the prototype head, where ``has_other_head``.
    """
    old = _config_of(saved)
    loose = LOOSE if prototype_similarity(old.cleaner.kind) else (*LOOSE, *HEAD)
    changed = [
        line for line in changed_settings(old, config) if line.startswith(BINDING) and not line.startswith(loose)
    ]
    if changed:
        raise InputError(
            f"run.resume: {checkpoint} is of a run with other settings: {', '.join(changed)}; give "
            "another checkpoint, or restore its settings"
        )


def has_other_head(saved: str, config: Config) -> bool:
    """Whether a checkpoint's prototype head cannot be loaded. Where its run trained no prototypes, nothing is lost."""
    return any(line.startswith(HEAD) for line in changed_settings(_config_of(saved), config))


def _config_of(saved: str) -> Config:
    """The config of a checkpoint from its YAML."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(saved, encoding="utf-8")
        return load_config([file], [])


def check_same_steps(state: CheckpointState, config: Config, checkpoint: Path) -> None:
    """InputError when a checkpoint from inside an epoch counts its stages or steps differently from these settings.

    Such a checkpoint counts stages by parallel.mode and steps in global batches. It may also hold a copy of a network
    from the start of a pass, which needs the same prototype head.
    """
    mode, position = state.get("mode", "data"), state["position"]
    if (position["stage"] or position["step"]) and has_other_head(state["config"], config):
        raise InputError(
            f"{checkpoint} stopped inside an epoch with other settings of the prototype head ({', '.join(HEAD)}): "
            "restore them, or start from a checkpoint at an epoch's end"
        )
    if mode != config.parallel.mode and (position["stage"] or position["step"]):
        raise InputError(
            f"{checkpoint} stopped inside an epoch with parallel.mode={mode}: resume with that mode, or start from a "
            "checkpoint at an epoch's end"
        )
    saved, batch_size = state.get("batch_size", config.train.batch_size), config.train.batch_size
    if position["step"] and saved != batch_size:
        raise InputError(
            f"{checkpoint} stopped inside an epoch at a global batch of {saved}, and this start makes it {batch_size}: "
            "start the same number of processes, or set train.batch_size to match (parallel.batch_size)"
        )


def changed_settings(old: Config, new: Config) -> list[str]:
    """Each changed setting outside FREE_KEYS, as "key (... there, ... now)".

    A run never keeps data.normalise=auto where its weights have a mean, so that a saved auto is data. Open sizes have
    the defaults.
    """
    old_flat, new_flat = flat_settings(old), flat_settings(new)
    if {old.data.normalise, new.data.normalise} <= {AUTO, DATA}:
        old_flat["data.normalise"] = new_flat["data.normalise"]
    for flat, data in ((old_flat, old.data), (new_flat, new.data)):
        flat |= {"data.resize": resize_of(data), "data.crop": crop_of(data), INTERPOLATION: interpolation_of(data)}
    return [
        f"{key} ({old_flat[key]!r} there, {new_flat[key]!r} now)"
        for key in new_flat
        if key not in FREE_KEYS and old_flat[key] != new_flat[key]
    ]


def flat_settings(config: Config) -> dict[str, Any]:
    """Dotted key -> value of every setting."""
    flat: dict[str, Any] = {}
    for key, value in dataclasses.asdict(config).items():
        flat |= {f"{key}.{name}": item for name, item in value.items()} if isinstance(value, dict) else {key: value}
    return flat
