"""The processes of a run that torchrun started together. With one process, every function here has no effect.

Random numbers and the order of samples are functions of the global step; each rank takes its share of a step. So a run
on N ranks equals a run on one, up to floating-point summation order.
"""

from fastcpc.distributed.collectives import (
    all_gather,
    all_reduce_async,
    all_reduce_mean,
    all_reduce_sum,
    all_to_all_rows,
    bytes_sent,
)
from fastcpc.distributed.consensus import (
    StopSignal,
    all_reduce_max,
    assert_equal_on_all_ranks,
    broadcast_files,
    on_rank0,
    raise_on_all_ranks,
)
from fastcpc.distributed.error_record import recorded_error
from fastcpc.distributed.process_group import (
    backend,
    connect,
    data_group,
    has_group,
    is_rank0,
    joined_process_group,
    launched_by_torchrun,
    local_rank,
    rank,
    restarts,
    set_location,
    with_rank_prefix,
    world_size,
)
from fastcpc.distributed.sharding import Shard, own_slice, shard_batches, whole_shard
from fastcpc.distributed.subgroups import connect_subgroups, own_subgroup, subgroup_index, swap_between_subgroups

__all__ = [
    "Shard",
    "StopSignal",
    "all_gather",
    "all_reduce_async",
    "all_reduce_max",
    "all_reduce_mean",
    "all_reduce_sum",
    "all_to_all_rows",
    "assert_equal_on_all_ranks",
    "backend",
    "broadcast_files",
    "bytes_sent",
    "connect",
    "connect_subgroups",
    "data_group",
    "has_group",
    "is_rank0",
    "joined_process_group",
    "launched_by_torchrun",
    "local_rank",
    "on_rank0",
    "own_slice",
    "own_subgroup",
    "raise_on_all_ranks",
    "rank",
    "recorded_error",
    "restarts",
    "set_location",
    "shard_batches",
    "subgroup_index",
    "swap_between_subgroups",
    "whole_shard",
    "with_rank_prefix",
    "world_size",
]
