"""Reads label files of arrays: .npy, .npz and torch's .pt, without unrestricted unpickling.

Readers raise ValueError or pickle.UnpicklingError with the reason, on one line and without the file's name.
"""

import io
import pickle
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy_format

from fastcpc.data.labels.safe_pickle import ALLOWED
from fastcpc.data.labels.table_reader import MAX_BYTES

HEADER_ROOM = 1 << 16
ORDERED_HINT = (
    "it holds a pickled object, which is not read; CIFAR-N's *_human_ordered.npy are in the order of TFDS, not in that"
    " of the data set: use CIFAR-10_human.pt or CIFAR-100_human.pt with noise.key instead"
)


@dataclass(frozen=True)
class Unread:
    """An array of the file that cannot be labels, with the reason."""

    reason: str


def read_npy(content: bytes) -> np.ndarray:
    """The array in a .npy file of plain numbers or text."""
    stream = io.BytesIO(content)
    try:
        array = npy_format.read_array(stream, allow_pickle=False)
    except Exception as error:  # a damaged file can raise any type, and is never used
        if "allow_pickle" in str(error):
            raise ValueError(ORDERED_HINT) from None
        reason = (str(error) or type(error).__name__).splitlines()[0][:80]
        raise ValueError(f"not a NumPy file, or truncated ({reason})") from None
    if array.dtype.names or array.dtype.kind not in "iufbU":
        raise ValueError(f"holds {str(array.dtype)[:40]}, expected labels")
    room = len(content) - stream.tell()
    if room:
        raise ValueError(f"{room:,} bytes after the array of shape {array.shape}; save it again")
    return array


def read_npz(content: bytes, num_samples: int) -> dict[str, Any]:
    """The arrays in a .npz file by name. num_samples: larger arrays than labels need are not read."""
    columns: dict[str, Any] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.infolist():
                if member.filename.endswith(".npy"):
                    columns[member.filename.removesuffix(".npy")] = _read_member(archive, member, num_samples)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"not a .npz file, or damaged ({str(error)[:80]})") from None
    return columns


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, num_samples: int) -> np.ndarray | Unread:
    if member.file_size > 8 * num_samples + HEADER_ROOM:
        return Unread(f"{member.file_size:,} bytes, too large for {num_samples:,} labels")
    try:
        return read_npy(archive.read(member))
    except ValueError as error:
        return Unread(str(error))


def read_torch(content: bytes) -> dict[str, Any]:
    """The entries of a dict saved by torch.save, loaded with weights_only and the names that NumPy arrays need.

    Arrays come back as PickledArray.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except zipfile.BadZipFile:
        raise ValueError("not a file of torch.save in its zip form, or truncated") from None
    if unpacked > MAX_BYTES:
        raise ValueError(f"{unpacked:,} bytes unpacked, too large for a label file")
    allowed: list[Any] = [(stand_in, name) for name, stand_in in ALLOWED.items()]
    try:
        with torch.serialization.safe_globals(allowed):
            value = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile file can raise any type, and is never used
        raise ValueError(f"not a data file that is safe to read: {_reason(error)}") from None
    if not isinstance(value, dict):
        raise ValueError(f"holds {type(value).__name__}, expected a dict of label lists")
    return {str(name): entry for name, entry in value.items()}


def _reason(error: Exception) -> str:
    """The cause of torch's error, without its advice to load the file unsafely."""
    cause = error.__context__
    if isinstance(error, pickle.UnpicklingError) and isinstance(cause, pickle.UnpicklingError):
        return " ".join(str(cause).split()).split(" Please ")[0].rstrip(".")[:160]
    return f"damaged, truncated or of an unknown kind ({type(error).__name__})"
