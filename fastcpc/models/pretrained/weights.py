"""Read the weights of a backbone from a file; only tensors are unpickled."""

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fastcpc.config.names import WEIGHTS_SUFFIXES
from fastcpc.config.paths import existing_weights
from fastcpc.errors import InputError


def load_weights(backbone: nn.Module, path: Path, classifier_names: Sequence[str]) -> None:
    """Load a backbone's weights in place.

    path: .safetensors, or .pt, .pth, .bin, .tar with tensors only (also under "state_dict" or "model"). The file
    contains the whole model of a library, the backbone alone, or a network of fastcpc, whose backbone is used.
    classifier_names: modules of the whole model that the backbone does not have; their weights are skipped.
    Raises InputError: no such file, another format, objects other than tensors, weights of another model.
    """
    copy_weights(backbone, read_tensors(path), classifier_names, f"model.weights: {path}")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read named tensors from a file, to the CPU. Raises InputError."""
    existing_weights(path)
    if path.suffix not in WEIGHTS_SUFFIXES:
        raise InputError(f"model.weights: {path} has an unknown suffix; use one of {', '.join(WEIGHTS_SUFFIXES)}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"model.weights: {path} is damaged or contains objects other than tensors, which are not loaded; "
            "save its state_dict as .safetensors"
        ) from error
    except Exception as error:
        # Damaged files raise many kinds of errors: struct.error, IndexError, UnicodeDecodeError, ...
        raise InputError(f"model.weights: {path} cannot be read: {first_line(error)}") from error
    return _tensors_of(content, path)


def copy_weights(
    backbone: nn.Module, tensors: Mapping[str, Tensor], classifier_names: Sequence[str], source: str
) -> None:
    """Copy named tensors into a backbone, which needs all of its weights. source: the start of the messages.

    Raises InputError with the first weight that is missing, unknown, or of another shape.
    """
    given = _strip_prefixes(tensors)
    dropped = tuple(f"{name}." for name in classifier_names)
    given = {key: value for key, value in given.items() if not (dropped and key.startswith(dropped))}
    expected = backbone.state_dict()
    # Files from before PyTorch 0.4.1 have no count of batches, which fastcpc does not read.
    missing = [key for key in expected if key not in given and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in given if key not in expected]
    if missing or unexpected:
        problems = [f"lacks {_first_of(missing)}"] if missing else []
        problems += [f"has the unknown {_first_of(unexpected)}"] if unexpected else []
        raise InputError(f"{source} is of another model: it {' and '.join(problems)}")
    for key, value in given.items():
        if value.shape != expected[key].shape:
            raise InputError(
                f"{source} does not fit the model: {key} is {tuple(value.shape)} in the file, "
                f"{tuple(expected[key].shape)} in the model (model.name, model.width, image channels)"
            )
    backbone.load_state_dict(given, strict=False)


def _tensors_of(content: object, path: Path) -> dict[str, Tensor]:
    """The named tensors of a loaded file, also from one level below."""
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"model.weights: {path} contains no state_dict (names to tensors)")
    return content


def _strip_prefixes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by the names of the backbone: without the prefixes of DataParallel and of a network of fastcpc."""
    named = {key.removeprefix("module."): value for key, value in tensors.items()}
    inner = {key.removeprefix("backbone."): value for key, value in named.items() if key.startswith("backbone.")}
    return inner or named


def _first_of(keys: Sequence[str]) -> str:
    return keys[0] if len(keys) == 1 else f"{keys[0]} and {len(keys) - 1} more"


def first_line(error: Exception) -> str:
    """The class and first line of an error, for a message."""
    return f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]
