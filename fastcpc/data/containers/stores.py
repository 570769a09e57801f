"""The images of container files: members of shards by offset, and cells of Parquet files by row.

Both are ``ImageStore``. They hold some 20 bytes per image beside the names, and open files on the first read.
"""

import numpy as np
from numpy.typing import NDArray

from fastcpc.data.containers.handles import ContainerFile, read_range
from fastcpc.data.containers.parquet_cells import CellColumn
from fastcpc.data.image_files import MAX_BYTES, BadImage
from fastcpc.data.image_store import UNKNOWN_SIZE, ImageStore
from fastcpc.errors import RunError


class MemberStore:
    """Images that are members of tar files. It holds 20 bytes per image, beside the names."""

    def __init__(
        self,
        base: str,
        names: tuple[str, ...],
        files: tuple[ContainerFile, ...],
        file_N: NDArray[np.int32],
        offset_N: NDArray[np.int64],
        size_N: NDArray[np.int64],
    ) -> None:
        """base: folder that the names begin in, with "/". file_N: number of the file of each image."""
        self.base, self.names, self.files = base, names, files
        self.file_N, self.offset_N, self.size_N = file_N, offset_N, size_N

    def __len__(self) -> int:
        return len(self.names)

    def path(self, row: int) -> str:
        """See ``ImageStore``."""
        return self.base + self.names[row]

    def read(self, row: int) -> bytes:
        """See ``ImageStore``. RunError where the shard has changed since it was indexed."""
        size = int(self.size_N[row])
        if not size:
            raise BadImage("the file is empty")
        if size > MAX_BYTES:
            raise BadImage(f"{size:,} bytes, more than {MAX_BYTES:,}")
        try:
            content = read_range(self.files[int(self.file_N[row])], int(self.offset_N[row]), size)
        except OSError as error:
            raise BadImage(f"cannot be read ({error.strerror})") from error
        if len(content) < size:
            raise BadImage(f"the shard has {len(content):,} of its {size:,} bytes")
        return content

    def state(self, row: int) -> tuple[int, int] | None:
        """See ``ImageStore``."""
        return int(self.size_N[row]), self.files[int(self.file_N[row])].mtime_ns

    def take(self, rows: np.ndarray) -> "MemberStore":
        """See ``ImageStore``. Only the files of these images are kept, because workers get the result as a pickle."""
        used, file_M = np.unique(self.file_N[rows], return_inverse=True)
        return MemberStore(
            self.base,
            tuple(self.names[row] for row in rows.tolist()),
            tuple(self.files[number] for number in used.tolist()),
            file_M.astype(np.int32),
            self.offset_N[rows],
            self.size_N[rows],
        )

    def joined(self, other: ImageStore) -> "MemberStore":
        """See ``ImageStore``."""
        assert isinstance(other, MemberStore) and self.base == other.base
        return MemberStore(
            self.base,
            self.names + other.names,
            self.files + other.files,
            np.concatenate([self.file_N, other.file_N + np.int32(len(self.files))]),
            np.concatenate([self.offset_N, other.offset_N]),
            np.concatenate([self.size_N, other.size_N]),
        )


class CellStore:
    """Images that are cells of Parquet files."""

    def __init__(
        self,
        base: str,
        names: tuple[str, ...],
        columns: tuple[CellColumn, ...],
        file_N: NDArray[np.int32],
        row_N: NDArray[np.int64],
    ) -> None:
        """base: folder that the names begin in, with "/". columns: of each file. file_N: number of the file of each
        image. row_N: row in its file."""
        self.base, self.names, self.columns = base, names, columns
        self.file_N, self.row_N = file_N, row_N

    def __len__(self) -> int:
        return len(self.names)

    def path(self, row: int) -> str:
        """See ``ImageStore``."""
        return self.base + self.names[row]

    def read(self, row: int) -> bytes:
        """See ``ImageStore``. RunError where the file has changed since it was indexed."""
        try:
            content = self.columns[int(self.file_N[row])].cell(int(self.row_N[row]))
        except OSError as error:
            raise BadImage(f"cannot be read ({error.strerror or error})") from error
        except (RunError, MemoryError):
            raise
        except Exception as error:  # damaged pages raise errors of any type
            reason = " ".join(f"{error or type(error).__name__}".split())[:80]
            raise BadImage(f"the Parquet file is damaged here ({reason})") from error
        if content is None:
            raise BadImage("the cell has no image")
        if not content:
            raise BadImage("the file is empty")
        return content

    def state(self, row: int) -> tuple[int, int] | None:
        """See ``ImageStore``."""
        return UNKNOWN_SIZE, self.columns[int(self.file_N[row])].file.mtime_ns

    def take(self, rows: np.ndarray) -> "CellStore":
        """See ``ImageStore``. Only the files of these images are kept, because workers get the result as a pickle."""
        used, file_M = np.unique(self.file_N[rows], return_inverse=True)
        return CellStore(
            self.base,
            tuple(self.names[row] for row in rows.tolist()),
            tuple(self.columns[number] for number in used.tolist()),
            file_M.astype(np.int32),
            self.row_N[rows],
        )

    def joined(self, other: ImageStore) -> "CellStore":
        """See ``ImageStore``."""
        assert isinstance(other, CellStore) and self.base == other.base
        return CellStore(
            self.base,
            self.names + other.names,
            self.columns + other.columns,
            np.concatenate([self.file_N, other.file_N + np.int32(len(self.columns))]),
            np.concatenate([self.row_N, other.row_N]),
        )
