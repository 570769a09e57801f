"""The processes of a run that torchrun started together. With one process, everything here does nothing.

A process is called by its rank, from 0. What is random, and in which order samples come, is a function of the global
step; a rank takes its share of it. So a run on N ranks is the run on one, but for the order in which it sums numbers.
"""

from fastcpc.ranks.agreement import StopWish, check_same, largest, on_first, share_files, together
from fastcpc.ranks.collectives import exchange_rows, gather, mean_, sum_, sum_later, traffic
from fastcpc.ranks.group import (
    at,
    backend,
    connect,
    data_group,
    is_first,
    joined,
    launched_by_torchrun,
    local_rank,
    name_own,
    rank,
    restarts,
    size,
)
from fastcpc.ranks.halves import connect_halves, half, own_half, swap
from fastcpc.ranks.shard import Shard, own_slice, shard_batches, whole

__all__ = [
    "Shard",
    "StopWish",
    "at",
    "backend",
    "check_same",
    "connect",
    "connect_halves",
    "data_group",
    "exchange_rows",
    "gather",
    "half",
    "is_first",
    "joined",
    "largest",
    "launched_by_torchrun",
    "local_rank",
    "mean_",
    "name_own",
    "on_first",
    "own_half",
    "own_slice",
    "rank",
    "restarts",
    "shard_batches",
    "share_files",
    "size",
    "sum_",
    "sum_later",
    "swap",
    "together",
    "traffic",
    "whole",
]
