"""Strong operations on one image in NumPy (``cpu_ops``) against Pillow's, in one thread of a CPU.

    OMP_NUM_THREADS=1 python bench/alternatives/strong_ops.py

A row makes the same strong views of 64 crops by both, with the conversion that each needs: crop in, normalised view
out. Pillow rounds blends and moved pixels in its own way. A row is valid if the views are near each other on average.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps

from fastcpc.config.schema import AugmentConfig
from fastcpc.data.augment.batched import GROUPS, MOVED, UNTOUCHED, StrongAugmenter
from fastcpc.data.augment.cpu_ops import CpuStrongAugmenter, Row, StrongDraw
from fastcpc.data.augment.normalize import Normaliser, PixelArray
from fastcpc.data.augment.policies import strong_policy
from fastcpc.data.rng import generator

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # bench/: the modules of all benches
from harness import Check, Report, arguments, this_machine, time_in_turns
from harness import Row as TableRow

NUM_CROPS = 64
SIDES = (64, 224)
POLICIES = ("autoaugment", "randaugment")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PILLOW: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "Brightness": lambda image, factor: ImageEnhance.Brightness(image).enhance(factor),
    "Color": lambda image, factor: ImageEnhance.Color(image).enhance(factor),
    "Contrast": lambda image, factor: ImageEnhance.Contrast(image).enhance(factor),
    "Sharpness": lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor),
    "Posterize": lambda image, mask: ImageOps.posterize(image, int(mask).bit_count()),
    "Solarize": lambda image, threshold: ImageOps.solarize(image, int(threshold)),
    "AutoContrast": lambda image, _: ImageOps.autocontrast(image),
    "Equalize": lambda image, _: ImageOps.equalize(image),
    "Invert": lambda image, _: ImageOps.invert(image),
}
LIMIT = 4.0  # mean difference in levels: solarize and posterize turn one level into many


def by_pillow(image: Image.Image, group: int, row: Row) -> Image.Image:
    """The operation of a group on an image, by Pillow alone."""
    if group == MOVED:
        half, centre = image.width / 2, image.width / 2
        a, b, c, d, e, f = (row * half).tolist()
        inverse = (a, b, centre + c - (a + b) * centre, d, e, centre + f - (d + e) * centre)
        return image.transform(image.size, Image.Transform.AFFINE, inverse, Image.Resampling.NEAREST)
    return PILLOW[GROUPS[group]](image, float(row[0]))


def views_by_pillow(crops: list[PixelArray], strong: StrongDraw, normaliser: Normaliser, out: np.ndarray) -> None:
    """Write the strong views of all crops to out, as ``CpuStrongAugmenter.put`` does."""
    groups, rows = strong
    for position, crop in enumerate(crops):
        steps = [step for step in range(len(groups)) if groups[step, position] != UNTOUCHED]
        if steps:
            image = Image.fromarray(crop)
            for step in steps:
                image = by_pillow(image, int(groups[step, position]), rows[step, position])
            crop = np.asarray(image)
        normaliser.put(crop, out[position])


def bench(policy: str, side: int, repeats: int) -> TableRow:
    """One row: both ways of making the views of one batch."""
    normaliser = Normaliser(MEAN, STD, side)
    own = CpuStrongAugmenter(normaliser)
    draws = generator(1, side)
    coarse = torch.randint(256, (NUM_CROPS, 9, 9, 3), generator=draws, dtype=torch.uint8).numpy()
    crops = [np.asarray(Image.fromarray(one).resize((side, side), Image.Resampling.BICUBIC)) for one in coarse]
    augment = AugmentConfig(strong=policy)  # type: ignore[arg-type]
    drawn = StrongAugmenter(strong_policy(augment, images=True), side, torch.device("cpu")).draw(NUM_CROPS, draws)
    strong = drawn[0].numpy(), drawn[1].numpy()
    ours, theirs = (np.zeros((NUM_CROPS, side, side, 3), np.float32) for _ in range(2))

    def own_views() -> None:
        for position, crop in enumerate(crops):
            own.put(crop, strong, position, ours[position])

    def pillow_views() -> None:
        views_by_pillow(crops, strong, normaliser, theirs)

    timings = time_in_turns({"cpu_ops": own_views, "Pillow": pillow_views}, repeats, "cpu", warmup=2)
    apart = np.abs(ours - theirs) * np.array(STD, np.float32) * 255
    notes = {"mean difference per view": np.percentile(apart.mean(axis=(1, 2, 3)), [50, 100]).round(3).tolist()}
    notes["views that are equal"] = int((apart.max(axis=(1, 2, 3)) < 0.5).sum())
    labels = {"policy": policy, "side": side, "views": NUM_CROPS}
    return TableRow(labels, Check("mean levels apart", float(apart.mean()), LIMIT), "cpu_ops", timings, notes=notes)


def main() -> int:
    """Run the bench."""
    options = arguments(__doc__ or "").parse_args()
    torch.set_num_threads(1)
    report = Report("strong_ops", this_machine("cpu"), options.results)
    for policy in POLICIES:
        for side in SIDES:
            report.add(bench(policy, side, options.repeats or 15))
            print(report.rows[-1].notes)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
