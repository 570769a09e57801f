"""Groups the members of a shard into samples: webdataset shards as img2dataset writes them.

Members whose names differ only in the last ending are one sample: ``000.jpg`` and ``000.cls``. Only positions are kept,
some 30 bytes per sample and its name. Samples have the order of their images in the shard.
"""

from array import array
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastcpc.data.containers.handles import ContainerFile
from fastcpc.data.containers.tar_reader import Member, read_members
from fastcpc.data.image_files import IMAGE_ENDINGS
from fastcpc.data.paths import same_name
from fastcpc.errors import InputError

CLS, JSON, TXT = "cls", "json", "txt"
LABEL_ENDINGS = (CLS, JSON, TXT)
PEEKED = 3000  # members that show where the labels are


class Want(NamedTuple):
    """What to take from a shard. image: ending of the images, "" for all. label: ending of the labels, "" for none."""

    image: str
    label: str


@dataclass
class ShardSamples:
    """The samples of a shard in order.

    names: of the images. offsets, sizes: of the images. label_offsets, label_sizes: of the members with the labels,
    offset 0 where a sample has none. key_hashes: of the keys. without_image: labels without an image. other: name of
    another member, or "".
    """

    names: list[str] = field(default_factory=list)
    offsets: "array[int]" = field(default_factory=lambda: array("q"))
    sizes: "array[int]" = field(default_factory=lambda: array("q"))
    label_offsets: "array[int]" = field(default_factory=lambda: array("q"))
    label_sizes: "array[int]" = field(default_factory=lambda: array("q"))
    key_hashes: "array[int]" = field(default_factory=lambda: array("q"))
    without_image: int = 0
    other: str = ""

    def __len__(self) -> int:
        return len(self.names)

    def in_order(self) -> NDArray[np.int64]:
        """Positions of the samples by the place of their images in the shard."""
        return np.argsort(np.frombuffer(self.offsets, np.int64), kind="stable")


def split_member(name: str) -> tuple[str, str]:
    """The key of the sample and the ending in lower case, without a dot; hidden files have the ending ""."""
    key, dot, ending = name.rpartition(".")
    if not dot or "/" in ending or name.startswith(".", name.rfind("/") + 1):
        return name, ""
    return key, ending.lower()


def index_shard(file: ContainerFile, want: Want) -> ShardSamples:
    """The samples of a shard. Raises InputError as ``read_members``, and for members of one name and for links.

    A key with two images is an error too: one of them may be a mask or a preview.
    """
    samples, waiting = ShardSamples(), dict[str, tuple[Member | None, Member | None]]()
    images = frozenset((want.image,) if want.image else (ending[1:] for ending in IMAGE_ENDINGS))
    label = want.label
    for member in read_members(file):
        key, ending = split_member(member.name)
        is_image = ending in images
        if not is_image and (ending != label or not label):
            samples.other = samples.other or ("" if ending in LABEL_ENDINGS else member.name)
            continue
        if member.link:
            raise InputError(
                f"{file.path}: member {member.name} is a link to {member.link}; write the images themselves "
                "(tar --dereference --hard-dereference)"
            )
        there = waiting.pop(key, (None, None))
        if there[0 if is_image else 1] is not None:
            raise _twice(file, there[0 if is_image else 1], member)
        image, text = (member, there[1]) if is_image else (there[0], member)
        if image is None or (label and text is None):
            waiting[key] = image, text
        else:
            _add(samples, key, image, text)
    for key, (image, text) in waiting.items():
        if image is None:
            samples.without_image += 1
        else:
            _add(samples, key, image, text)
    _check_names(file, samples)
    return samples


def _add(samples: ShardSamples, key: str, image: Member, text: Member | None) -> None:
    samples.names.append(image.name)
    samples.key_hashes.append(hash(key))
    samples.offsets.append(image.offset)
    samples.sizes.append(image.size)
    samples.label_offsets.append(0 if text is None else text.offset)
    samples.label_sizes.append(0 if text is None else text.size)


def _check_names(file: ContainerFile, samples: ShardSamples) -> None:
    """InputError where two samples have one key: the first was complete when the second came."""
    # 8 bytes per sample instead of a text; equal hashes of different keys only cost the exact check below
    hashes = np.sort(np.frombuffer(samples.key_hashes, np.int64))
    if not (hashes[1:] == hashes[:-1]).any():
        return
    first: dict[str, Member] = {}
    for name, offset in zip(samples.names, samples.offsets, strict=True):
        key = split_member(name)[0]
        if key in first:
            raise _twice(file, first[key], Member(name, offset, 0))
        first[key] = Member(name, offset, 0)


def _twice(file: ContainerFile, one: Member | None, other: Member) -> InputError:
    assert one is not None
    if one.name == other.name:
        return InputError(f"{file.path}: has two members {one.name}; give each sample a key of its own")
    return InputError(
        f"{file.path}: {one.name} and {other.name} are two images of one sample; data.image_key names the ending of "
        "the images, such as jpg"
    )


def sample_name(shard: str, member: str) -> str:
    """The name of a sample in outputs: SHARD/MEMBER."""
    return f"{shard}/{same_name(member)}"
