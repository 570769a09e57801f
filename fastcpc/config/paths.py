"""Files and folders that settings name: errors for those that are missing, before anything large is imported.

``fastcpc-train`` and ``fastcpc-prepare`` call ``check_paths``. What is in the files is checked where they are read.
"""

from pathlib import Path

from fastcpc.config import names
from fastcpc.config.data_root import find_root_files
from fastcpc.config.schema import Config, DataConfig
from fastcpc.errors import InputError

NO_LABELS = "data.labels is empty: embeddings in a file need a label file; a folder of fastcpc-embed has its own"


def existing_folder(setting: str, root: str) -> Path:
    """The folder that a setting names. InputError where it is not a folder."""
    folder = Path(root).expanduser()
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.is_file() else "no such folder"
        raise InputError(f"{setting}={root}: {what}")
    return folder


def check_paths(config: Config) -> None:
    """Raise InputError for the first path that a new run would not find."""
    check_data_paths(config.data)
    model, resume = config.model, config.run.resume
    if model.weights and names.is_weights_path(model.weights):
        existing_weights(Path(model.weights).expanduser())
    if config.noise.kind == "file":
        _existing("noise.file", config.noise.file)
    if resume not in ("auto", "never"):
        existing_run(Path(resume).expanduser())


def check_data_paths(data: DataConfig) -> None:
    """The part of ``check_paths`` for the data set."""
    traits = names.DATASETS[data.name]
    if traits.files:
        for name in ("root", "test_root"):
            if getattr(data, name):
                find_root_files(f"data.{name}", getattr(data, name), traits.files)
    elif traits.needs_root:
        existing_folder("data.root", data.root)
    if data.embeddings and not data.labels and Path(data.embeddings).expanduser().is_file():
        raise InputError(NO_LABELS)
    for name in ("embeddings", "labels", "test_embeddings", "test_labels", "corrections"):
        _existing(f"data.{name}", getattr(data, name))


def existing_weights(path: Path) -> None:
    """InputError where there is no file of weights."""
    if not path.is_file():
        raise InputError(f"model.weights: no file {path}; give a path, a name of weights, or nothing")


def existing_run(path: Path) -> None:
    """InputError where run.resume names no folder."""
    if not path.is_dir():
        raise InputError(
            f"run.resume: {path} is not a folder; give auto, never, or the path of a checkpoint's or a run's folder"
        )


def _existing(setting: str, name: str) -> None:
    if name and not Path(name).expanduser().exists():
        raise InputError(f"{setting}={name}: no such file")
