"""Names of the files in a folder of fastcpc-embed, and what its embed.json says."""

import json
from pathlib import Path
from typing import Any

from fastcpc.errors import InputError

EMBEDDINGS, INDEX, EMBED_FILE = "embeddings.npy", "index.parquet", "embed.json"


def read_record(path: Path) -> dict[str, Any]:
    """The content of embed.json. InputError where it is damaged."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read ({str(error).splitlines()[0][:80]}); embed the images again"
        ) from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: is damaged; embed the images again")
    return content


def embedded_root(path: Path) -> str:
    """The folder to which the paths of index.parquet are relative."""
    return str(read_record(path).get("root", ""))


def embedded_image_key(path: Path) -> str:
    """The column of images that --image-key named, or ""."""
    return str(read_record(path).get("image_key", ""))
