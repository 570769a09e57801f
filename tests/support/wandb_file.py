"""Reads the file that wandb writes offline: LevelDB's log format, each record a protocol buffer."""

import json
import struct
from pathlib import Path
from typing import Any

HEADER, BLOCK = 7, 32768  # bytes: ":W&B", magic and version; a block of chunks


def records(path: Path) -> list[Any]:
    """The records of a run-*.wandb file, in order."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, parts, found = path.read_bytes(), HEADER, b"", []
    assert data[:4] == b":W&B"
    while place < len(data):
        if BLOCK - place % BLOCK < HEADER:  # no room for a chunk's head: the block ends in zeros
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last of several chunks
            record = Record()
            record.ParseFromString(parts)
            found.append(record)
            parts = b""
    return found


def history(path: Path) -> list[dict[str, Any]]:
    """What was logged, a dictionary a step."""
    return [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in records(path)
        if record.WhichOneof("record_type") == "history"
    ]


def summary(path: Path) -> dict[str, Any]:
    """The summary as it was updated last."""
    merged = {}
    for record in records(path):
        if record.WhichOneof("record_type") == "summary":
            merged |= {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.summary.update}
    return merged
