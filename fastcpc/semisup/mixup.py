"""MixUp (Zhang et al. 2018) as MixMatch uses it: the sample itself always outweighs its partner."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastcpc.distributed import all_to_all_rows, has_group, rank, world_size


def sample_lambda(alpha: float, generator: torch.Generator) -> float:
    """Draw the weight of the sample itself, max(lam, 1 - lam) with lam ~ Beta(alpha, alpha).

    alpha: above 0; generator: CPU generator, of which one number is drawn. Returns a number in [0.5, 1].
    Source: DivideMix, section 3.2; MixMatch, eqs. 8 and 9.
    """
    # PyTorch's beta distribution takes no generator, so a seed is drawn for NumPy's.
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    lam = float(np.random.default_rng(seed).beta(alpha, alpha))
    return max(lam, 1.0 - lam)


@dataclass(frozen=True)
class Partners:
    """Which rows of the training views this rank's rows are mixed with, and which rank has them.

    wanted: int64 (P,) on the device, partners of rows 0..P-1. With one rank, rows of its own views; with several, rows
    of what the ranks send it. send: int64, this rank's rows that all ranks want, by rank. send_counts, receive_counts:
    how many rows go to and come from each rank.
    """

    wanted: Tensor
    send: Tensor | None = None
    send_counts: tuple[int, ...] = ()
    receive_counts: tuple[int, ...] = ()

    def fetch(self, rows: Tensor) -> Callable[[], Tensor]:
        """Begin to fetch the partners of this rank's rows (M, ...); what is returned waits and gives them, (P, ...)."""
        if self.send is None:
            return lambda: rows.index_select(0, self.wanted)
        form = torch.channels_last if _is_channels_last(rows) else torch.contiguous_format
        chosen = rows.index_select(0, self.send).flatten(1)
        waiting = all_to_all_rows(chosen.contiguous(), self.send_counts, self.receive_counts, "mixup")
        return lambda: waiting().index_select(0, self.wanted).view(-1, *rows.shape[1:]).contiguous(memory_format=form)


def find_partners(permutation: Tensor, blocks: int, num_mixed: int, device: torch.device) -> Partners:
    """Partners by a permutation of the global batch.

    permutation: int64 (M,) on the CPU, over rows in ``blocks`` blocks of equal length (labelled of view 1, of view 2,
    unlabelled of ...). A rank has an equal, contiguous share of each block. num_mixed: the first rows that
    are mixed at all, a whole number of blocks.
    """
    if not has_group():
        return Partners(permutation[:num_mixed].to(device, non_blocking=True))
    block = len(permutation) // blocks
    share = block // world_size()
    partner = permutation[:num_mixed]
    row = torch.arange(num_mixed)
    owner_of_row, owner = row % block // share, partner % block // share
    local = partner // block * share + partner % share  # the partner's row on its own rank: shares are aligned
    mine = owner_of_row == rank()
    order = owner[mine].argsort(stable=True)  # rows arrive by rank, and from each in the order of who wants them
    wanted = torch.empty_like(order)
    wanted[order] = torch.arange(len(order))
    asked = owner == rank()
    send_order = owner_of_row[asked].argsort(stable=True)
    return Partners(
        wanted.to(device, non_blocking=True),
        local[asked][send_order].to(device, non_blocking=True),
        tuple(torch.bincount(owner_of_row[asked], minlength=world_size()).tolist()),
        tuple(torch.bincount(owner[mine], minlength=world_size()).tolist()),
    )


def mixup(rows: Tensor, partners: Tensor, lam: Tensor) -> Tensor:
    """Mix the first rows of a batch, images or targets, with their partners.

    rows: (M, ...) floating; partners: (P, ...) floating, P <= M, row i < P is mixed with partner i; lam: 0-d floating
    in [0, 1], weight of the row itself. Returns (P, ...). Source: MixMatch, eqs. 10 and 11.
    """
    return lam * rows[: len(partners)] + (1.0 - lam) * partners


def _is_channels_last(rows: Tensor) -> bool:
    return rows.ndim == 4 and not rows.is_contiguous() and rows.is_contiguous(memory_format=torch.channels_last)
