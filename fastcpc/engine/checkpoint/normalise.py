"""``data.normalise=auto`` becomes the mean and std that the weights of a new run expect.

``fastcpc-train`` calls it before it opens the run's folder. The saved config then has mean and std, so that later
commands need neither the weights nor the library that they come from.
"""

from dataclasses import replace
from pathlib import Path

from fastcpc import distributed
from fastcpc.config.load import read_config, run_folder
from fastcpc.config.names import DATASETS
from fastcpc.config.normalise import AUTO, normalise_text
from fastcpc.config.schema import Config
from fastcpc.data.dataset import RGB
from fastcpc.data.registry import inference_transform
from fastcpc.engine.checkpoint.resume import candidates
from fastcpc.errors import InputError
from fastcpc.models.pretrained.preprocessing import Preprocessing, weights_preprocessing


def with_weights_normalisation(config: Config) -> tuple[Config, list[str]]:
    """The config with mean and std of its weights, on all ranks, and warnings for the user.

    A run that resumes keeps what it began with. Other settings, and settings without weights or for grey images, stay
    as they are.
    """
    found = distributed.broadcast_files(distributed.on_rank0(lambda: _decide(config)))
    assert found is not None
    text = found.pop("normalise").decode()
    return replace(config, data=replace(config.data, normalise=text)), [note.decode() for note in found.values()]


def _decide(config: Config) -> dict[str, bytes]:
    text, notes = _decision(config)
    return {"normalise": text.encode()} | {str(number): note.encode() for number, note in enumerate(notes)}


def _decision(config: Config) -> tuple[str, list[str]]:
    data = config.data
    if not config.model.weights or DATASETS[data.name].kind == "embeddings":
        return data.normalise, []
    inputs = inference_transform(data)
    if inputs.channels != RGB:
        return data.normalise, []
    before = _resumed_config(config)
    if before is not None:
        return (before.data.normalise if data.normalise == AUTO else data.normalise), []
    expected = weights_preprocessing(config.model)
    if expected is None or len(expected.mean) != RGB:
        return data.normalise, []
    notes = _notes(config, expected)
    if data.normalise == AUTO:
        return normalise_text(expected.mean, expected.std), notes
    if (inputs.mean, inputs.std) != (expected.mean, expected.std):
        notes.append(
            f"data.normalise={data.normalise}: model.weights expect {_words(expected)}; the run uses mean and std "
            f"{normalise_text(inputs.mean, inputs.std)}"
        )
    return data.normalise, notes


def _notes(config: Config, expected: Preprocessing) -> list[str]:
    notes = []
    if expected.others and config.data.normalise == AUTO:
        first = expected.others[0]
        notes.append(
            f"data.normalise=auto: takes {_words(expected)}, but {len(expected.others)} other weights of this model "
            f"expect others ({first}); if yours are such, name them: model.name=timm/{first}"
        )
    if DATASETS[config.data.name].kind == "images" and expected.pixels not in (0, config.data.crop):
        notes.append(
            f"data.crop={config.data.crop}: model.weights were trained on images of {expected.pixels} pixels "
            f"({expected.source})"
        )
    return notes


def _words(expected: Preprocessing) -> str:
    return f"mean and std {normalise_text(expected.mean, expected.std)} ({expected.source})"


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
