"""Time passes over a folder of images: fastcpc's loaders against a DataLoader and a DALI reader per view.

All passes use the same images, batches and views (resize 256, crop 224, flip; strong views add ImageNet's AutoAugment)
and end in normalised float32. "cached" reads what fastcpc-prepare --cache wrote. The workers of the DataLoader decode
each image once, with Pillow or with torchvision's decoder. The DALI peer has one reader per view.
"""

import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dali_readers import BATCH, CROP, MEAN, RESIZE, STD, DaliReader
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision.io import ImageReadMode, decode_image, read_file
from torchvision.transforms import v2

from fastcpc.config.schema import AugmentConfig, DataConfig
from fastcpc.data.augment.policies import WeakPolicy
from fastcpc.data.dataset import Dataset, ImageSplit, ImageTransform
from fastcpc.data.image_store import ImageFiles
from fastcpc.data.loaders.base import Loader, ViewName
from fastcpc.data.loaders.factory import make_loader
from fastcpc.data.prepare.cache import CacheWriter
from fastcpc.data.prepare.check_images import check_image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # bench/: the modules of all benches
from harness import Check, Report, Row, arguments, this_machine, time_in_turns

LIMIT = 1.0  # in levels of 255
VIEWS: dict[str, tuple[ViewName, ...]] = {
    "2 weak": ("weak", "weak"),
    "2 weak + 2 strong": ("weak", "weak", "strong", "strong"),
}


class Peer(TorchDataset[list[Tensor]]):
    """Images as a DataLoader's workers make them: decoded once, transformed once per view."""

    def __init__(self, paths: Sequence[str], views: Sequence[ViewName], *, pillow: bool) -> None:
        self.paths, self.pillow = paths, pillow
        self.transforms = [peer_transform(view) for view in views]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> list[Tensor]:
        if self.pillow:
            with Image.open(self.paths[row]) as file:
                image: Any = file.convert("RGB")
        else:
            image = decode_image(read_file(self.paths[row]), ImageReadMode.RGB)
        return [transform(image) for transform in self.transforms]


def peer_transform(view: ViewName) -> Callable[[Any], Tensor]:
    """The transforms of torchvision for a view."""
    steps: list[Any] = [v2.Resize(RESIZE)]
    steps += [v2.CenterCrop(CROP)] if view == "test" else [v2.RandomCrop(CROP), v2.RandomHorizontalFlip()]
    steps += [v2.AutoAugment()] if view == "strong" else []
    steps += [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    transform: Callable[[Any], Tensor] = v2.Compose(steps)
    return transform


def loader(paths: Sequence[str], views: Sequence[ViewName], workers: int, *, pillow: bool) -> DataLoader[list[Tensor]]:
    """A DataLoader whose workers stay alive between passes."""
    return DataLoader(
        Peer(paths, views, pillow=pillow),
        BATCH,
        num_workers=workers,
        persistent_workers=True,
        pin_memory=torch.cuda.is_available(),
    )


def consume(batches: Iterable[Any], device: torch.device) -> None:
    """Move every batch to the device."""
    for batch in batches:
        for view in batch if isinstance(batch, list) else batch.views:
            view.to(device, non_blocking=True)


def ours(feed: Loader, views: Sequence[ViewName], num: int, device: torch.device) -> None:
    """A pass of one of fastcpc's loaders."""
    consume(feed.stream(list(torch.arange(num).split(BATCH)), views, 1), device)


def peer_pass(batches: DataLoader[list[Tensor]], device: torch.device) -> None:
    """A pass of a DataLoader."""
    consume(iter(batches), device)


def readers_pass(readers: Sequence[DaliReader], num: int, device: torch.device) -> None:
    """A pass of separate DALI readers, in step with each other; the last batch is filled up."""
    for views in zip(*(reader.batches(-(-num // BATCH)) for reader in readers), strict=True):
        consume([list(views)], device)


def check(loaders: Sequence[Loader], paths: Sequence[str], workers: int, device: torch.device) -> Check:
    """Compare test views of some images: every loader and the peers against the first loader."""
    index = torch.tensor([row for row in range(len(paths)) if has_a_centre(paths[row])][:BATCH])
    chosen = [paths[row] for row in index.tolist()]
    views = [next(feed.stream([index], ("test",), 1)).views[0].cpu() for feed in loaders]
    for pillow in (True, False):
        views.append(torch.stack([Peer(chosen, ("test",), pillow=pillow)[row][0] for row in range(len(chosen))]))
    reader = DaliReader(chosen, "test", workers, device)
    views += [batch[: len(chosen)].cpu().clone() for batch in reader.batches(1)]  # freed with the pipeline
    scale = 255 * torch.tensor(STD).view(3, 1, 1)
    return Check("levels apart", max(float(((view - views[0]) * scale).abs().mean()) for view in views[1:]), LIMIT)


def has_a_centre(path: str) -> bool:
    """Whether the centre crop starts on whole pixels. DALI and torchvision round halves differently."""
    with Image.open(path) as image:
        shorter, longer = sorted(image.size)
    return RESIZE * longer // shorter % 2 == CROP % 2


def bench(name: str, paths: Sequence[str], cache: Path, workers: int, device: torch.device, repeats: int) -> Row:
    """The row of one set of views."""
    split = ImageSplit(ImageFiles(paths), np.zeros(len(paths), np.int64), None, np.arange(len(paths)), tuple(paths))
    transform = ImageTransform(RESIZE, CROP, random_resized_crop=False, flip=True)
    dataset = Dataset("images", ("none",), split, {}, MEAN, STD, WeakPolicy(True, 0), image_transform=transform)
    data = DataConfig(name="imagefolder", root="-", workers=workers, max_bad=0.0)
    dali, threads, cached = (
        make_loader(split, dataset, replace(data, feed=feed, cache=stored), AugmentConfig(), device)  # type: ignore[arg-type]
        for feed, stored in (("dali", "off"), ("torch", "off"), ("dali", str(cache)))
    )
    views, num = VIEWS[name], len(paths)
    checked = check((dali, threads, cached), paths, workers, device)
    readers = [DaliReader(paths, view, workers, device) for view in views]
    calls: dict[str, Callable[[], None]] = {
        "dali": partial(ours, dali, views, num, device),
        "torch": partial(ours, threads, views, num, device),
        "cached": partial(ours, cached, views, num, device),
        "a DALI reader a view": partial(readers_pass, readers, num, device),
    }
    for peer, pillow in (("DataLoader Pillow", True), ("DataLoader torchvision", False)):
        batches = loader(paths, views, workers, pillow=pillow)
        calls[peer] = partial(peer_pass, batches, device)
    timings = time_in_turns(calls, repeats, device.type) if checked.passed else {}
    notes: dict[str, Any] = {"load": f"{os.getloadavg()[0]:.1f}"}
    peer = "DataLoader Pillow"
    if timings:
        notes["cached vs Pillow"] = f"{timings[peer].median / timings['cached'].median:.2f}x"
        notes["torch vs Pillow"] = f"{timings[peer].median / timings['torch'].median:.2f}x"
    if device.type == "cuda":  # rates on a CPU do not carry over to other runs
        for call, timing in timings.items():
            notes[call] = f"{num / timing.median:.0f} images/s, {num * len(views) / timing.median:.0f} views/s"
    labels = {"views": name, "images": num, "batch": BATCH, "workers": workers}
    return Row(labels, checked, "dali", timings, notes=notes)


def write_cache(paths: Sequence[str], folder: Path) -> Path:
    """The images as ``fastcpc-prepare --cache`` stores them."""
    table = folder / f"images.cache-{RESIZE}.parquet"
    with CacheWriter(table, "imagefolder", RESIZE, len(paths), 0.0) as writer:
        for path in paths:
            check, small = check_image(ImageFiles([path]), 0, RESIZE)
            if small is None:
                raise SystemExit(f"{path}: {check.problem}")
            writer.add(path, small.pixels, check.num_bytes, small.mtime_ns)
    return table


def main() -> int:
    """Print the table and write the JSON."""
    parser = arguments(__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder of JPEG files, searched in depth")
    parser.add_argument("--images", type=int, default=512, help="how many of them a pass takes")
    parser.add_argument("--workers", type=int, default=2, help="decoding threads, or the DataLoader's processes")
    options = parser.parse_args()
    found = sorted(str(path) for path in options.root.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not found:
        parser.error(f"--root {options.root}: no .jpg file in it")
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0))[: options.images]
    paths = [found[row] for row in order.tolist()]
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # of DALI's own AutoAugment
    machine = this_machine(options.device)
    packages = {name: version(name) for name in ("torchvision", "pillow", "nvidia-dali-cuda130")}
    report = Report("data", replace(machine, packages=machine.packages | packages), options.results)
    report.extra["load"] = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        cache = write_cache(paths, Path(folder))
        for name in VIEWS:
            report.add(bench(name, paths, cache, options.workers, torch.device(options.device), options.repeats or 3))
    report.extra["load_after"] = os.getloadavg()
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
