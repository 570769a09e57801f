"""Losses made comparable between epochs and networks: min-max over the whole set, mean over the last epochs."""

import torch
from torch import Tensor

from fastcpc.errors import RunError

NAMED_SAMPLES = 5


def check_finite(loss_N: Tensor, network: int, rows_N: Tensor | None = None) -> None:
    """Raise RunError that names the first samples whose loss is NaN or infinite.

    loss_N: (N,) floating. network: 1 or 2, for the message. rows_N: int64 (N,), which samples these are; None: all.
    Reads the device once.
    """
    bad = torch.nonzero(~torch.isfinite(loss_N)).flatten().tolist()
    if bad and rows_N is not None:
        bad = rows_N[bad].tolist()
    if bad:
        more = ", ..." if len(bad) > NAMED_SAMPLES else ""
        named = ", ".join(str(i) for i in bad[:NAMED_SAMPLES]) + more
        raise RunError(
            f"network {network}: the loss of {len(bad)} of {len(loss_N)} training samples is NaN or inf (rows "
            f"{named}); "
            "start a new run (another run.dir) with a lower train.lr, or with precision=fp32"
        )


def min_max(loss_N: Tensor) -> Tensor:
    """Losses mapped to [0, 1] over the whole set; all zeros where they are all equal.

    loss_N: (N,) floating, finite. Returns (N,) float32.
    """
    loss = loss_N.float()
    low, high = loss.min(), loss.max()
    return (loss - low) / (high - low).clamp_min(torch.finfo(torch.float32).tiny)


def append_history(history_LN: Tensor, loss_N: Tensor, length: int) -> Tensor:
    """Append an epoch's losses to the history and keep the last ``length`` epochs.

    history_LN: (L, N) float32, L >= 0, oldest first. NaN marks epochs before a sample was there, which take its loss of
    this epoch. Returns (min(L + 1, length), N).
    """
    if length == 1:  # nothing is kept, so that the samples may be others than before
        return loss_N[None]
    history_LN = torch.where(history_LN.isnan(), loss_N, history_LN)
    return torch.cat([history_LN, loss_N[None]])[-length:]
