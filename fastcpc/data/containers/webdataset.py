"""Lists webdataset shards: tar files with an image and its label per sample, as img2dataset writes them."""

import os
from array import array
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fastcpc.config.schema import DataConfig
from fastcpc.data.containers.handles import ContainerFile, container_file
from fastcpc.data.containers.samples import Samples, Texts, find_parts, list_samples
from fastcpc.data.containers.shard_index import TXT, ShardSamples, Want, index_shard, sample_name, split_member
from fastcpc.data.containers.shard_labels import LONGEST_LABEL, LabelSource, choose_source
from fastcpc.data.containers.stores import MemberStore
from fastcpc.data.containers.tar_reader import AGAIN, Window
from fastcpc.data.datasets.listing import Listing
from fastcpc.errors import InputError

ENDING = ".tar"
PACKED_ENDINGS = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
MANY_TEXTS = 10  # distinct .txt labels from which more than one per two images count as captions


@dataclass
class _Found:
    """What is read of all shards so far; arrays have an entry per sample."""

    names: list[str] = field(default_factory=list)
    files: list[ContainerFile] = field(default_factory=list)
    file: "array[int]" = field(default_factory=lambda: array("i"))
    part: "array[int]" = field(default_factory=lambda: array("b"))
    offset: "array[int]" = field(default_factory=lambda: array("q"))
    size: "array[int]" = field(default_factory=lambda: array("q"))
    labels: Texts = field(default_factory=Texts)
    trusted: Texts = field(default_factory=Texts)
    remarks: list[str] = field(default_factory=list)


def list_webdataset(config: DataConfig) -> Listing:
    """The samples of shards. Raises InputError, one line with shard and member, for what cannot be read."""
    files = find_parts(config, (ENDING, *PACKED_ENDINGS), "shards (.tar)")
    shards = files.in_order()
    packed = next((path for _, _, path in shards if path.lower().endswith(PACKED_ENDINGS)), None)
    if packed is not None:
        raise InputError(
            f"{packed}: is compressed, so single members cannot be read; decompress it (gunzip, unxz, zstd -d) to .tar"
        )
    found, base = _Found(remarks=files.remarks), os.path.join(files.base, "")
    source = None if config.list else choose_source(container_file(shards[0][2]), config.label_key)
    want = Want(config.image_key.lower().lstrip("."), source.ending if source else "")
    others = []
    for part, name, path in shards:
        file = container_file(path)
        samples = index_shard(file, want)
        order = samples.in_order()
        _add(found, file, part, name, samples, order)
        if source is not None:
            _add_labels(found, file, samples, order, source)
        others.append((path, samples.without_image, samples.other))
    if not found.names:
        there = others[0][2] or ("labels only" if others[0][1] else "no members")
        raise InputError(f"{shards[0][2]}: no images in the shards ({there}); check data.root")
    _add_remarks(found, others)
    if source is not None and source.ending == TXT and not config.label_key:
        _refuse_captions(found)
    return list_samples(_samples(found, base, source), config, f"{len(shards):,} shard{'s' * (len(shards) > 1)}")


def _add(
    found: _Found, file: ContainerFile, part: int, name: str, samples: ShardSamples, order: NDArray[np.int64]
) -> None:
    """Append the samples of a shard in this order."""
    names = [sample_name(name, samples.names[row]) for row in order.tolist()]
    _check_names(file, samples, order, names)
    found.names += names
    found.file.frombytes(np.full(len(order), len(found.files), np.int32).tobytes())
    found.part.frombytes(np.full(len(order), part, np.int8).tobytes())
    found.offset.frombytes(np.frombuffer(samples.offsets, np.int64)[order].tobytes())
    found.size.frombytes(np.frombuffer(samples.sizes, np.int64)[order].tobytes())
    found.files.append(file)


def _check_names(file: ContainerFile, samples: ShardSamples, order: NDArray[np.int64], names: list[str]) -> None:
    """InputError where two samples have one name in outputs, such as a.jpg and ./a.jpg."""
    hashes = np.sort(np.fromiter(map(hash, names), np.int64, len(names)))  # a set would need ten times the memory
    if not (hashes[1:] == hashes[:-1]).any():
        return
    first: dict[str, int] = {}
    for name, row in zip(names, order.tolist(), strict=True):
        before = first.setdefault(name, row)
        if before != row:
            raise InputError(
                f"{file.path}: members {samples.names[before]!r} and {samples.names[row]!r} are one name in outputs; "
                "rename one of them"
            )


def _add_labels(
    found: _Found, file: ContainerFile, samples: ShardSamples, order: NDArray[np.int64], source: LabelSource
) -> None:
    """Append label and true label of each sample; "" where it has no member with a label."""
    window = Window(file)
    for row in order.tolist():
        offset, size = samples.label_offsets[row], samples.label_sizes[row]
        label = trusted = ""
        if offset:
            try:
                if size > LONGEST_LABEL:
                    raise ValueError(f"has {size:,} bytes, too many for a label; {AGAIN}")
                label, trusted = source.texts(window.read(offset, size))
            except ValueError as error:
                member = f"{split_member(samples.names[row])[0]}.{source.ending}"
                raise InputError(f"{file.path}/{member}: {error}") from None
        found.labels.add(label)
        found.trusted.add(trusted)


def _add_remarks(found: _Found, shards: list[tuple[str, int, str]]) -> None:
    """Say which members are not used. shards: path, number of labels without an image, name of another member."""
    alone = [(path, without_image) for path, without_image, _ in shards if without_image]
    if alone:
        count = sum(number for _, number in alone)
        found.remarks.append(f"{alone[0][0]}: {count:,} labels without an image in the shards are left alone")
    other = next(((path, name) for path, _, name in shards if name), None)
    if other is not None:
        found.remarks.append(f"{other[0]}: members that are no images or labels are left alone: {other[1]}, ...")


def _refuse_captions(found: _Found) -> None:
    """InputError where .txt members are captions: as class names they would make a class of each image."""
    num_texts, num_images = len(found.labels.distinct), len(found.names)
    if num_texts > MANY_TEXTS and 2 * num_texts > num_images:
        raise InputError(
            f"{found.files[0].path}: .txt members have {num_texts:,} texts for {num_images:,} images: captions, "
            "not labels; add .cls members, list the labels in data.list, or set data.label_key=txt"
        )


def _samples(found: _Found, base: str, source: LabelSource | None) -> Samples:
    names = tuple(found.names)
    return Samples(
        images=MemberStore(
            base,
            names,
            tuple(found.files),
            np.frombuffer(found.file, np.int32),
            np.frombuffer(found.offset, np.int64),
            np.frombuffer(found.size, np.int64),
        ),
        names=names,
        part_N=np.frombuffer(found.part, np.int8),
        labels=None if source is None else found.labels,
        trusted=found.trusted if any(found.trusted.distinct) else None,
        no_label="" if source is None else source.missing,
        remarks=found.remarks,
    )
