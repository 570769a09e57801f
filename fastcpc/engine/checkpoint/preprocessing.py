"""The preprocessing that the weights of a new run expect takes the place of open settings.

Open are data.normalise=auto, data.resize=0, data.crop=0 and data.interpolation=auto. ``fastcpc-train`` calls this
before it opens the run's folder. The saved config then has all values, so that later commands need neither the weights
nor the library that they come from.
"""

from dataclasses import replace
from pathlib import Path

from fastcpc import distributed
from fastcpc.config.load import read_config, run_folder
from fastcpc.config.names import DATASETS
from fastcpc.config.normalise import AUTO, normalise_text
from fastcpc.config.schema import Config, DataConfig
from fastcpc.config.sizes import BILINEAR, CROP, INTERPOLATIONS, RESIZE, crop_of, interpolation_of, resize_of
from fastcpc.config.validation import cross_setting_problems
from fastcpc.data.dataset import RGB
from fastcpc.data.registry import inference_transform
from fastcpc.engine.checkpoint.resume import candidates
from fastcpc.errors import InputError
from fastcpc.models.pretrained.preprocessing import CENTER, Preprocessing, weights_preprocessing


def with_weights_preprocessing(config: Config) -> tuple[Config, list[str]]:
    """The config with the preprocessing of its weights, on all ranks, and warnings for the user.

    A run that resumes keeps what it began with. Settings that are given stay as they are. Without weights, and for grey
    images, open sizes have the defaults. InputError where the sizes of the weights clash with given ones.
    """
    found = distributed.broadcast_files(distributed.on_rank0(lambda: _decide(config)))
    assert found is not None
    normalise, resize, crop, interpolation = (found.pop(name).decode() for name in OPEN)
    data = replace(config.data, normalise=normalise, resize=int(resize), crop=int(crop))
    config = replace(config, data=replace(data, interpolation=interpolation))  # type: ignore[arg-type]
    clashes = [problem.message for problem in cross_setting_problems(config) if "data.crop" in problem.keys]
    if clashes:
        raise InputError("\n".join(clashes))
    return config, [note.decode() for note in found.values()]


OPEN = ("normalise", "resize", "crop", "interpolation")  # settings of data that weights decide


def _decide(config: Config) -> dict[str, bytes]:
    data, notes = _decision(config)
    decided = {name: str(getattr(data, name)).encode() for name in OPEN}
    return decided | {str(number): note.encode() for number, note in enumerate(notes)}


def _decision(config: Config) -> tuple[DataConfig, list[str]]:
    data, before = config.data, _resumed_config(config)
    is_rgb = DATASETS[data.name].kind != "embeddings" and inference_transform(data).channels == RGB
    takes_weights = bool(config.model.weights) and is_rgb
    if before is not None:
        given = replace(data, normalise=before.data.normalise) if takes_weights and data.normalise == AUTO else data
        return _with_sizes(given, resize_of(before.data), crop_of(before.data), interpolation_of(before.data)), []
    expected = weights_preprocessing(config.model) if takes_weights else None
    if expected is None or len(expected.mean) != RGB:
        return _with_sizes(data, RESIZE, CROP, BILINEAR), []
    of_files = DATASETS[data.name].kind == "images"
    notes = [*(_size_notes(data, expected) if of_files else []), *_normalise_notes(data, expected)]
    if data.normalise == AUTO:
        data = replace(data, normalise=normalise_text(expected.mean, expected.std))
    if not of_files:
        return _with_sizes(data, RESIZE, CROP, BILINEAR), notes
    crop = data.crop or expected.pixels or CROP
    known = expected.interpolation if expected.interpolation in INTERPOLATIONS else BILINEAR
    return _with_sizes(data, expected.resize(crop) or RESIZE, crop, known), notes


def _with_sizes(data: DataConfig, resize: int, crop: int, interpolation: str) -> DataConfig:
    """The settings with these values where they are open."""
    if data.interpolation != AUTO:
        interpolation = data.interpolation
    return replace(data, resize=data.resize or resize, crop=data.crop or crop, interpolation=interpolation)  # type: ignore[arg-type]


def _normalise_notes(data: DataConfig, expected: Preprocessing) -> list[str]:
    notes = []
    words = f"mean and std {normalise_text(expected.mean, expected.std)} ({expected.source})"
    inputs = inference_transform(data)
    if expected.others and data.normalise == AUTO:
        first = expected.others[0]
        notes.append(
            f"data.normalise=auto: takes {words}, but {len(expected.others)} other weights of this model "
            f"expect others ({first}); if yours are such, name them: model.name=timm/{first}"
        )
    if data.normalise != AUTO and (inputs.mean, inputs.std) != (expected.mean, expected.std):
        notes.append(
            f"data.normalise={data.normalise}: model.weights expect {words}; the run uses mean and std "
            f"{normalise_text(inputs.mean, inputs.std)}"
        )
    return notes


def _size_notes(data: DataConfig, expected: Preprocessing) -> list[str]:
    """What the weights expect and the run does not do."""
    notes, source = [], expected.source
    crop = data.crop or expected.pixels or CROP
    if expected.pixels not in (0, crop):
        notes.append(
            f"data.crop={data.crop}: model.weights were trained on images of {expected.pixels} pixels ({source})"
        )
    if data.resize and expected.resize(crop) not in (0, data.resize):
        notes.append(
            f"data.resize={data.resize}: model.weights expect {expected.resize(crop)} for data.crop={crop} ({source})"
        )
    given = data.interpolation if data.interpolation != AUTO else ""
    if expected.interpolation not in INTERPOLATIONS or (given and given != expected.interpolation):
        notes.append(
            f"data.interpolation={data.interpolation}: model.weights expect {expected.interpolation} ({source}); the "
            f"run uses {given or BILINEAR}"
        )
    if expected.crop_mode != CENTER:
        notes.append(
            f"model.weights: expect images by crop mode {expected.crop_mode} ({source}); the run crops the centre"
        )
    return notes


def _resumed_config(config: Config) -> Config | None:
    """The saved config of the run that this start resumes; None for a fresh start."""
    own, resume = run_folder(config), config.run.resume
    places = [own] if candidates(own) else []
    if resume not in ("auto", "never") and not places:
        path = Path(resume).expanduser()
        places = [path, path.parent.parent]
    for place in places:
        if (place / "config.yaml").is_file():
            try:
                return read_config(place)
            except InputError:
                return None  # the check of the folder names the error
    return None
