"""The embeddings of ``bench/audit.py``, by ``fastcpc-embed``.

    python bench/cifar/embeddings.py --out DIR --cifar10 DIR --cifar100 DIR --clothing DIR

CIFAR's images are written as PNG files into a Parquet file and embedded at 112 pixels (104 images/s on one core of an
AMD EPYC). ``--clothing`` is a folder with ``train/`` and ``test/``. It is embedded at 224 pixels, the default.
Writes NAME_train.npy (N, D) float16, NAME_train_labels.npy (N,) int64, and the same with ``test``. Repeat the command
after an interruption.
"""

import argparse
import io
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from fastcpc.data.dataset import ArraySplit
from fastcpc.data.datasets.cifar import load_cifar
from fastcpc.data.datasets.cifar_meta import CIFAR10, CIFAR100

CIFAR = {"cifar10": CIFAR10, "cifar100": CIFAR100}
CIFAR_SIZE = 112  # pixels


def write_images(split: ArraySplit, file: Path) -> None:
    """Images and labels of a split as a Parquet file with the columns image (PNG) and label."""
    images = []
    for pixels_CHW in split.pixels.numpy():
        buffer = io.BytesIO()
        Image.fromarray(pixels_CHW.transpose(1, 2, 0)).save(buffer, "PNG", compress_level=1)
        images.append(buffer.getvalue())
    table = pa.table({"image": images, "label": np.asarray(split.labels, np.int64)})
    part = file.with_suffix(".part")
    pq.write_table(table, part, row_group_size=2000)
    part.rename(file)


def embed(source: Path, out: Path, *options: str) -> None:
    """Run fastcpc-embed. It resumes after an interruption."""
    command = [sys.executable, "-m", "fastcpc.cli.embeddings.embed", str(source), "--out", str(out), *options]
    subprocess.run(command, check=True)


def save(parts: Path, out: Path, name: str, which: str | None = None) -> None:
    """NAME.npy and NAME_labels.npy of a folder of fastcpc-embed. which: only the rows of this split."""
    index = pq.read_table(parts / "index.parquet", columns=["label", "split"])
    labels_N = index["label"].to_numpy().astype(np.int64)
    kept_N = np.full(len(labels_N), True) if which is None else np.array(index["split"].to_pylist()) == which
    np.save(out / f"{name}.npy", np.load(parts / "embeddings.npy", mmap_mode="r")[kept_N])
    np.save(out / f"{name}_labels.npy", labels_N[kept_N])


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the arrays")
    for name in (*CIFAR, "clothing"):
        parser.add_argument(f"--{name}", type=Path, metavar="DIR", help="where its files are")
    options = parser.parse_args(argv)
    parts: Path = options.out / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    for name, facts in CIFAR.items():
        if (root := getattr(options, name)) is None:
            continue
        data = load_cifar(str(root), facts)
        for which, split in (("train", data.train), ("test", data.tests["test"])):
            file = parts / f"{name}_{which}.parquet"
            assert isinstance(split, ArraySplit)
            if not file.exists():
                write_images(split, file)
            embed(file, parts / f"{name}_{which}", "--size", str(CIFAR_SIZE))
            save(parts / f"{name}_{which}", options.out, f"{name}_{which}")
    if options.clothing is not None:
        embed(options.clothing, parts / "clothing")
        for which in ("train", "test"):
            save(parts / "clothing", options.out, f"clothing_{which}", which)


if __name__ == "__main__":
    main()
