"""Checks of the arguments of the prototype ops, and the choice of backend."""

from typing import Literal

import torch
from torch import Tensor

from .inputs import Array, as_tensor

Backend = Literal["auto", "triton", "torch"]


def check_embeddings(embeddings: Tensor, prototypes: Tensor, labels: Tensor) -> None:
    """ValueError unless these are (B, d) and (K, d) floating and (B,) int64 tensors of one device, labels in [0, K).

    The range of labels is looked at on a CPU only: on a GPU that would wait for the device. There an out-of-range
    label makes the kernel's result NaN (Triton) or trips the device's own assertion (torch). Under
    ``torch.autograd.set_detect_anomaly(True)``, PyTorch's switch for debugging, labels are looked at everywhere.
    """
    for name, tensor in (("embeddings", embeddings), ("prototypes", prototypes)):
        if tensor.ndim != 2 or not tensor.is_floating_point():
            raise ValueError(f"{name}: expected a floating tensor of two dimensions, got {_form(tensor)}")
    if embeddings.shape[1] != prototypes.shape[1] or embeddings.shape[1] == 0:
        raise ValueError(
            f"prototypes: expected rows as long as those of embeddings, {_form(embeddings)}, got {_form(prototypes)}"
        )
    if prototypes.shape[0] < 2:
        raise ValueError(f"prototypes: expected 2 rows (classes) or more, got {_form(prototypes)}")
    if prototypes.device != embeddings.device:
        raise ValueError(f"prototypes: expected them on {embeddings.device} as embeddings, got {prototypes.device}")
    check_rows("labels", labels, torch.int64, embeddings)
    check_range("labels", labels, 0, prototypes.shape[0])


def check_rows(name: str, tensor: Tensor, dtype: torch.dtype, embeddings: Tensor) -> None:
    """ValueError unless ``tensor`` holds one ``dtype`` value for each row of ``embeddings``, on the same device."""
    if tensor.shape != (embeddings.shape[0],) or tensor.dtype != dtype:
        raise ValueError(
            f"{name}: expected {dtype} ({embeddings.shape[0]},), one a row of embeddings, got {_form(tensor)}"
        )
    if tensor.device != embeddings.device:
        raise ValueError(f"{name}: expected it on {embeddings.device} as embeddings, got {tensor.device}")


def as_ids(name: str, labels: Array, device: torch.device) -> Tensor:
    """Labels of any integer dtype, bool apart, as an int64 tensor; other dtypes stay, for ``check_rows`` to refuse."""
    ids = as_tensor(name, labels, device)
    is_integer = not (ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool)
    return ids.to(torch.int64) if is_integer else ids


def check_range(name: str, labels: Tensor, low: int, high: int) -> None:
    """ValueError naming the first label outside [low, high); see ``check_embeddings`` for what happens on a GPU."""
    if labels.device.type != "cpu" and not torch.is_anomaly_enabled():
        return
    outside = (labels < low) | (labels >= high)
    if bool(outside.any()):
        first = int(outside.nonzero()[0])
        raise ValueError(
            f"{name}: expected values in [{low}, {high - 1}], got {int(labels[first])} at position {first}"
        )


def accumulation_dtype(*tensors: Tensor) -> torch.dtype:
    """float64 if any of ``tensors`` is, else float32: what sums are kept in."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def _form(tensor: Tensor) -> str:
    return f"{tensor.dtype} {tuple(tensor.shape)}"
