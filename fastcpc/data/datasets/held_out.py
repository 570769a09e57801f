"""The test part that is drawn from the training images, where a data set of image files has no val or test part.

``with_test_part`` draws it. Where a data set has changed since a run began, the draw is another one. Then
``keep_held_out`` gives each image of the run its part back, so that no held-out image becomes a training image.
"""

from collections.abc import Set
from dataclasses import replace

import numpy as np
import torch

from fastcpc.arrays import Bools, Ints
from fastcpc.data.dataset import ImageSplit
from fastcpc.data.datasets.listing import UNKNOWN, Listing
from fastcpc.data.identity import plain_names
from fastcpc.data.rng import generator
from fastcpc.errors import InputError


def draw_held_out(labels_N: Ints, share: float) -> Bools:
    """Which samples are in the test part, (N,): a share of each class, drawn with a fixed seed.

    A class with two or more samples gives at least one. labels_N: classes.
    """
    draws = generator(0, "holdout")
    out_N = np.zeros(len(labels_N), bool)
    for label in np.unique(labels_N):
        rows = np.flatnonzero(labels_N == label)
        num_out = min(len(rows) - 1, max(1, round(share * len(rows))))
        out_N[rows[torch.randperm(len(rows), generator=draws).numpy()[:num_out]]] = True
    return out_N


def hold_out(whole: ImageSplit, share: float) -> dict[str, ImageSplit]:
    """Split off a test part (``draw_held_out``). Raises InputError where no class has two images."""
    out = draw_held_out(whole.labels, share)
    if not out.any():
        raise InputError("no class has two images: nothing can be kept out for the accuracy; give a val or test part")
    return _parts(whole, out)


def with_test_part(listing: Listing, share: float) -> Listing:
    """The listing with a part "test": its own, else its val part, else images held out of training.

    share: of each class to hold out; 0: the training part is the test part too. InputError as ``hold_out``.
    """
    splits, remarks = dict(listing.splits), listing.remarks
    held_out = set(splits) == {"train"} and share > 0
    if held_out:
        splits = hold_out(splits["train"], share)
        remarks += (
            f"no val or test part: {len(splits['test']):,} images ({share:g} of each class) are kept out of training "
            "for the accuracy, which is judged by their given labels",
        )
    splits.setdefault("test", splits.get("val", splits["train"]))
    return replace(listing, splits=splits, remarks=remarks, held_out=held_out)


def keep_held_out(listing: Listing, held_out: Set[str], root: str) -> Listing:
    """The listing with these images (``plain_names``) as test part, and all others to train on. root: data.root.

    An image that the run does not know is a training image. Other listings are returned as they are. Raises
    InputError where none of the images is left.
    """
    if not listing.held_out:
        return listing
    drawn = (listing.splits["train"], listing.splits["test"])
    order = np.argsort(np.concatenate([split.source_index for split in drawn]))
    whole = _joined(drawn).take(order)
    out = np.array([name in held_out for name in plain_names(root, whole.names)], bool)
    if not out.any():
        raise InputError("none of the images that the run held out for the accuracy is left; start a new run")
    return replace(listing, splits=_parts(whole, out))


def _joined(drawn: tuple[ImageSplit, ImageSplit]) -> ImageSplit:
    one, two = drawn
    known = [np.full(len(split), UNKNOWN, np.int64) if split.trusted is None else split.trusted for split in drawn]
    return ImageSplit(
        images=one.images.joined(two.images),
        labels=np.concatenate([one.labels, two.labels]),
        trusted=None if one.trusted is None and two.trusted is None else np.concatenate(known),
        source_index=np.concatenate([one.source_index, two.source_index]),
        names=one.names + two.names,
    )


def _parts(whole: ImageSplit, out: np.ndarray) -> dict[str, ImageSplit]:
    return {"train": whole.take(np.flatnonzero(~out)), "test": whole.take(np.flatnonzero(out))}
