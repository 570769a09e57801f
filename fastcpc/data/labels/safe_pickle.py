"""Reads untrusted pickles without running code from them.

Only the names that pickled NumPy arrays need may occur in a file. Each name maps to a class or function of this module
that runs no code of the file. Only plain number arrays pass.
"""

import io
import math
import pickle
from typing import Any

import numpy as np

PLAIN_CODES = frozenset({"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8"})


class PickledDtype:
    """Replaces numpy.dtype: the type of plain numbers, without structured types and objects."""

    def __init__(self, code: Any, align: Any = False, copy: Any = False) -> None:
        if not isinstance(code, str) or code not in PLAIN_CODES:
            raise pickle.UnpicklingError(f"an array of type {str(code)[:20]!r}, where only plain numbers are read")
        self.code = code
        self.order = "|"

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("an array with a structured type, where only plain numbers are read")
        if state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("an array with an unknown byte order")
        self.order = state[1]


class PickledArray:
    """Replaces numpy.ndarray: checks that shape and bytes match before NumPy reads them."""

    def __init__(self) -> None:
        self.array: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise pickle.UnpicklingError("an array whose state is not the usual five parts")
        _, shape, dtype, column_major, raw = state
        if not isinstance(dtype, PickledDtype) or not isinstance(shape, tuple):
            raise pickle.UnpicklingError("an array without a type or a shape")
        if not all(isinstance(size, int) and size >= 0 for size in shape):
            raise pickle.UnpicklingError("an array with an impossible shape")
        if isinstance(raw, str):  # Python 2 wrote the bytes as a string
            raw = raw.encode("latin1")
        plain = np.dtype(dtype.order + dtype.code)
        if not isinstance(raw, bytes) or len(raw) != math.prod(shape) * plain.itemsize:
            raise pickle.UnpicklingError("an array whose bytes do not fit its shape")
        self.array = np.frombuffer(raw, plain).reshape(shape, order="F" if column_major else "C")


def _reconstruct(kind: Any, shape: Any, code: Any) -> PickledArray:
    """Replaces NumPy's function of this name: an empty array, filled later from its state."""
    if kind is not PickledArray:
        raise pickle.UnpicklingError("an array of an unknown kind")
    return PickledArray()


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Replaces _codecs.encode, which pickles use for bytes of Python 2."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "iso-8859-1"):
        raise pickle.UnpicklingError("text in an encoding other than latin1")
    return text.encode("latin1")


# All names that may occur in an untrusted file. torch's weights-only loader gets the same list.
ALLOWED: dict[str, Any] = {
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy._core.multiarray._reconstruct": _reconstruct,
    "numpy.ndarray": PickledArray,
    "numpy.dtype": PickledDtype,
    "_codecs.encode": _encode,
}


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return ALLOWED[f"{module}.{name}"]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which a data file has no use for") from None


def load_pickle(content: bytes) -> Any:
    """Read a pickle of dicts, lists, strings, numbers and plain number arrays.

    content: the whole file; strings of Python 2 are read as latin1. Arrays come back as PickledArray, see ``unwrap``.
    Raises pickle.UnpicklingError, with the reason, for everything else: other names, damage, truncation.
    """
    try:
        return _RestrictedUnpickler(io.BytesIO(content), encoding="latin1").load()
    except pickle.UnpicklingError as error:
        raise pickle.UnpicklingError(" ".join(str(error).split())) from None
    except Exception as error:  # a damaged pickle can raise any type, and is never used
        raise pickle.UnpicklingError(f"damaged or truncated ({type(error).__name__})") from None


def unwrap(value: Any) -> Any:
    """The NumPy array inside a PickledArray; any other value unchanged.

    Raises UnpicklingError for an array without content.
    """
    if isinstance(value, PickledArray):
        if value.array is None:
            raise pickle.UnpicklingError("an array without content")
        return value.array
    return value
