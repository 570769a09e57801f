"""Makes a data set of image files from its listing, the index of fastcpc-prepare and the settings."""

import logging

from fastcpc.config.schema import DataConfig
from fastcpc.config.sizes import crop_of, interpolation_of, resize_of
from fastcpc.data.augment.policies import WeakPolicy
from fastcpc.data.dataset import Dataset, ImageSplit, ImageTransform
from fastcpc.data.datasets.listing import Listing
from fastcpc.data.prepare.index import Index, invalid_rows, read_index
from fastcpc.errors import InputError

logger = logging.getLogger("fastcpc")


def load_listing(listing: Listing, config: DataConfig) -> Dataset:
    """The data set of a listing, with the checks of fastcpc-prepare.

    ``Dataset.broken`` lists the broken training images. Raises InputError for more than ``data.max_bad`` of them, for a
    broken test image, and where lists, files and index do not match.
    """
    for remark in listing.remarks:
        logger.warning("%s: %s", config.name, remark)
    index = read_index(config.root, config.name, config.index)
    return Dataset(
        name=listing.name,
        class_names=listing.class_names,
        train=listing.splits["train"],
        tests={name: split for name, split in listing.splits.items() if name != "train"},
        mean=listing.mean,
        std=listing.std,
        weak=WeakPolicy(flip=config.flip, padding=0),
        image_transform=ImageTransform(
            resize_of(config), crop_of(config), config.random_resized_crop, config.flip, interpolation_of(config)
        ),
        class_ids=listing.class_ids,
        broken=() if index is None else _broken(listing, index, config.max_bad),
        held_out=listing.held_out,
    )


def _broken(listing: Listing, index: Index, max_bad: float) -> tuple[int, ...]:
    """Rows of the training split that do not decode."""
    for name, split in listing.splits.items():
        unchecked = sum(path not in index.problems for path in split.names)
        if unchecked:
            logger.warning(
                "%s: %s of %s %s images are not in it; run fastcpc-prepare again to have them checked",
                index.path, f"{unchecked:,}", f"{len(split):,}", name,
            )  # fmt: skip
        rows = invalid_rows(split.names, index)
        if rows and name != "train":
            first = split.names[rows[0]]
            raise InputError(
                f"{first}: {index.problems[first]}; {len(rows):,} broken images in the {name} set, which must be "
                f"whole: replace them or take them out of the set{_outdated_text(index, split, rows)}"
            )
    train = listing.splits["train"]
    rows = invalid_rows(train.names, index)
    if len(rows) > max_bad * len(train):
        first = train.names[rows[0]]
        raise InputError(
            f"{len(rows):,} of {len(train):,} training images are broken, more than data.max_bad={max_bad:g} allows; "
            f"the first is {first} ({index.problems[first]}), {index.path} has all{_outdated_text(index, train, rows)}"
        )
    if rows:
        text = _outdated_text(index, train, rows)
        logger.warning("%s: %s broken training images are left out%s", index.path, f"{len(rows):,}", text)
    return tuple(rows)


def _outdated_text(index: Index, split: ImageSplit, rows: list[int]) -> str:
    """The end of a message where broken images were replaced since they were checked."""
    outdated = [split.names[row] for row in rows if index.is_outdated(split.names[row], split.images.state(row))]
    if not outdated:
        return ""
    return f"; {len(outdated):,} of them have changed since ({outdated[0]}): run fastcpc-prepare again"
