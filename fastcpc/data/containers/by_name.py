"""Reads images by the names that outputs have, without listing the whole data set: the report's gallery shows few.

A name is a file, SHARD.tar/MEMBER, or FILE.parquet#ROW, below a folder.
"""

import os
import re
from collections.abc import Sequence
from functools import lru_cache

from fastcpc.data.containers.handles import ContainerFile, container_file, read_range
from fastcpc.data.containers.parquet_cells import CellColumn
from fastcpc.data.containers.parquet_schema import find_cells, open_parquet
from fastcpc.data.containers.tar_reader import read_members
from fastcpc.data.image_files import BadImage, read_bytes
from fastcpc.data.paths import same_name
from fastcpc.errors import InputError

MEMBER = re.compile(r"(.+?\.tar)/(.+)", re.IGNORECASE | re.DOTALL)
CELL = re.compile(r"(.+\.parquet)#([0-9]+)", re.IGNORECASE | re.DOTALL)
KEPT_SHARDS = 16  # of which the members are kept by name


def is_member(name: str) -> bool:
    """Whether a name is that of an image inside a container file."""
    return bool(MEMBER.fullmatch(name) or CELL.fullmatch(name))


class NamedImages:
    """Images below a folder, by row of their names. image_key: data.image_key, or ""."""

    def __init__(self, base: str, names: Sequence[str], image_key: str = "") -> None:
        self.base, self.names, self._image_key = base, names, image_key

    def read(self, row: int) -> bytes:
        """The content of an image file. Raises BadImage."""
        path = os.path.join(self.base, self.names[row])
        member, cell = MEMBER.fullmatch(path), CELL.fullmatch(path)
        if os.path.lexists(path) or not (member or cell):
            return read_bytes(path)
        try:
            content = _member(member[1], member[2]) if member else self._cell(cell)
        except FileNotFoundError:
            raise BadImage("no such file") from None
        except OSError as error:
            raise BadImage(f"cannot be read ({error.strerror})") from error
        except InputError as error:
            raise BadImage(str(error)) from None
        if not content:
            raise BadImage("the file is empty")
        return content

    def _cell(self, cell: "re.Match[str] | None") -> bytes | None:
        assert cell is not None
        column, row = _column(container_file(cell[1]), self._image_key), int(cell[2])
        if row >= sum(chunk.num_rows for chunk in column.chunks):
            raise BadImage("no such row")
        return column.cell(row)


def _member(shard: str, name: str) -> bytes:
    file = container_file(shard)
    place = _places(file).get(same_name(name))
    if place is None:
        raise BadImage("no such member")
    return read_range(file, *place)


@lru_cache(KEPT_SHARDS)
def _places(file: ContainerFile) -> dict[str, tuple[int, int]]:
    """Offset and size of each member of a shard by its name."""
    return {same_name(member.name): (member.offset, member.size) for member in read_members(file)}


@lru_cache(KEPT_SHARDS)
def _column(file: ContainerFile, image_key: str) -> CellColumn:
    with open_parquet(file.path) as opened:
        return find_cells(file.path, opened, file, image_key)
