"""A backbone's weights out of a file, without ever unpickling anything but tensors."""

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fastcpc.config.names import WEIGHTS_SUFFIXES
from fastcpc.errors import InputError


def load_weights(backbone: nn.Module, path: Path, classifier_names: Sequence[str]) -> None:
    """Load a backbone's weights in place.

    path: .safetensors, or .pt, .pth, .bin, .tar with nothing but tensors in it (also under "state_dict" or "model"):
    the library's whole model, the backbone alone, or one of this package's networks, of which the backbone is taken.
    classifier_names: modules of the library's model that the backbone lacks; their weights in the file are passed over.
    Raises InputError: no such file, another format, objects that are no tensors, weights of another model.
    """
    copy_weights(backbone, read_tensors(path), classifier_names, f"model.weights: {path}")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read named tensors from a file, to the CPU. Raises InputError."""
    if not path.is_file():
        raise InputError(
            f"model.weights: no file {path}; give a path, a weights name of the model's library, or nothing"
        )
    if path.suffix not in WEIGHTS_SUFFIXES:
        raise InputError(f"model.weights: {path} ends in none of {', '.join(WEIGHTS_SUFFIXES)}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"model.weights: {path} is damaged or holds objects other than tensors, which are not loaded; "
            "save its state_dict as .safetensors"
        ) from error
    except Exception as error:
        # Damaged bytes end in any of a dozen classes: struct.error, IndexError, UnicodeDecodeError, ...
        raise InputError(f"model.weights: {path} cannot be read: {first_line(error)}") from error
    return _tensors_of(content, path)


def copy_weights(
    backbone: nn.Module, tensors: Mapping[str, Tensor], classifier_names: Sequence[str], source: str
) -> None:
    """Copy named tensors into a backbone whose every weight must be there; source: what messages start with.

    Raises InputError naming the first weight that is missing, too many, or of another shape.
    """
    given = _strip_prefixes(tensors)
    dropped = tuple(f"{name}." for name in classifier_names)
    given = {key: value for key, value in given.items() if not (dropped and key.startswith(dropped))}
    expected = backbone.state_dict()
    # Files from before PyTorch 0.4.1 do not count batches; nothing here reads the count.
    missing = [key for key in expected if key not in given and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in given if key not in expected]
    if missing or unexpected:
        problems = [f"lacks {_first_of(missing)}"] if missing else []
        problems += [f"has {_first_of(unexpected)} too many"] if unexpected else []
        raise InputError(f"{source} is of another model: it {' and '.join(problems)}")
    for key, value in given.items():
        if value.shape != expected[key].shape:
            raise InputError(
                f"{source} does not fit the model: {key} is {tuple(value.shape)} in the file, "
                f"{tuple(expected[key].shape)} in the model (model.name, model.width, image channels)"
            )
    backbone.load_state_dict(given, strict=False)


def _tensors_of(content: object, path: Path) -> dict[str, Tensor]:
    """The named tensors of a loaded file, also where they lie one level down."""
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"model.weights: {path} holds no state_dict (names to tensors)")
    return content


def _strip_prefixes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names as the backbone has them: without DataParallel's prefix, and the backbone's part of a whole network."""
    named = {key.removeprefix("module."): value for key, value in tensors.items()}
    inner = {key.removeprefix("backbone."): value for key, value in named.items() if key.startswith("backbone.")}
    return inner or named


def _first_of(keys: Sequence[str]) -> str:
    return keys[0] if len(keys) == 1 else f"{keys[0]} and {len(keys) - 1} more"


def first_line(error: Exception) -> str:
    """What went wrong, on one line, for a message of ours."""
    return f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]
