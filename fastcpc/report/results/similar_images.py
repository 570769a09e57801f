"""Images that look alike to the run's network: groups of suspects, and near duplicates with different labels.

The report and fastcpc-clean --near-duplicates use it. Features are projected to DIMS dimensions, and the mean is
taken off: features of a network have one sign, so that without it all cosines are high. Suspects are compared with
all samples in blocks, so that memory is bounded.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from fastcpc.arrays import Ints
from fastcpc.data.dataset import EmbeddingSplit
from fastcpc.data.image_files import BadImage
from fastcpc.data.registry import load_dataset
from fastcpc.engine.outputs.pred_probs import FEATURES_FILE, project
from fastcpc.engine.outputs.sample_table import SampleTable
from fastcpc.errors import InputError
from fastcpc.report.results.images import TrainingImages
from fastcpc.report.results.run import Run, damaged_file

Features = NDArray[np.float32]
GROUP = 0.9  # cosine of an image and the first of its group
NEAR = 0.95  # cosine of near duplicates
ALIKE = 0.95  # correlation of their pixels
SIDE = 16  # pixels of the grey images that are correlated
NEIGHBOURS = 5  # of a suspect that are looked at
MOST_SUSPECTS = 2_000  # worst first
MOST_READ = 200  # pairs whose pixels are compared, the highest cosines first
BLOCK = 8_192


@dataclass(frozen=True)
class NearDuplicate:
    """Two training images that look alike and have different given labels. row: the suspect. pixels: correlation of
    their grey pixels, None where an image cannot be read."""

    row: int
    other: int
    cosine: float
    pixels: float | None


def unit_features(run: Run, samples: SampleTable) -> tuple[Features | None, str]:
    """Unit vectors per sample (N, <= DIMS), or why there are none. InputError where the file is damaged."""
    if run.config.data.name == "embeddings":
        try:
            train = load_dataset(run.config.data).train
        except InputError as error:
            return None, f"No features: {str(error).splitlines()[0]}"
        assert isinstance(train, EmbeddingSplit)
        row_of = {index: int(row) for index, row in zip(train.source_index.tolist(), train.rows, strict=True)}
        rows = [row_of.get(index) for index in samples.index_N.tolist()]
        if None in rows:
            return None, "No features: the embeddings are of another data set than the run."
        return _unit(_projected(train.array, np.array(rows, np.int64))), ""
    path = run.path / FEATURES_FILE
    if not path.is_file():
        return None, f"This run has no {FEATURES_FILE} (it is written at the end), so similar images are not grouped."
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise damaged_file(path, " ".join(str(error).split())[:120]) from None
    if not isinstance(stored, np.ndarray) or stored.ndim != 2 or len(stored) != len(samples):
        raise damaged_file(path, "does not have one row per sample")
    return _unit(np.asarray(stored, np.float32)), ""


def _projected(array: np.ndarray, rows_N: Ints) -> Features:
    blocks = [rows_N[first : first + BLOCK] for first in range(0, len(rows_N), BLOCK)]
    return np.concatenate([project(np.asarray(array[block], np.float32)) for block in blocks])


def _unit(values_ND: Features) -> Features:
    centred_ND = values_ND - values_ND.mean(0)
    return np.asarray(centred_ND / np.maximum(np.linalg.norm(centred_ND, axis=1, keepdims=True), 1e-12), np.float32)


def nearest(unit_ND: Features, rows_S: Ints, most: int = NEIGHBOURS) -> tuple[Ints, Features]:
    """The samples with the highest cosines to each of these rows, and the cosines: (S, most), in descending order.

    A sample is not its own neighbour. Fewer than ``most`` others: -1 and -inf.
    """
    query_SD = unit_ND[rows_S]
    best_SM = np.full((len(rows_S), most), -np.inf, np.float32)
    other_SM = np.full((len(rows_S), most), -1, np.int64)
    for first in range(0, len(unit_ND), BLOCK):
        cosine_SB = query_SD @ unit_ND[first : first + BLOCK].T
        inside = (rows_S >= first) & (rows_S < first + BLOCK)
        cosine_SB[np.flatnonzero(inside), rows_S[inside] - first] = -np.inf
        num = min(most, cosine_SB.shape[1])
        place_SM = np.argpartition(-cosine_SB, num - 1, axis=1)[:, :num]
        values = np.concatenate([best_SM, np.take_along_axis(cosine_SB, place_SM, 1)], axis=1)
        others = np.concatenate([other_SM, np.where(np.isfinite(values[:, most:]), place_SM + first, -1)], axis=1)
        order = np.argsort(-values, axis=1, kind="stable")[:, :most]
        best_SM, other_SM = np.take_along_axis(values, order, 1), np.take_along_axis(others, order, 1)
    return other_SM, best_SM


def similar_groups(unit_MD: Features) -> Ints:
    """A group number for each of M images: an image joins the first group whose first image has a cosine of at least
    GROUP, else it begins a group. int64 (M,)."""
    groups, firsts = np.zeros(len(unit_MD), np.int64), np.empty((0, unit_MD.shape[1]), np.float32)
    for row, values_D in enumerate(unit_MD):
        close = np.flatnonzero(firsts @ values_D >= GROUP)
        groups[row] = close[0] if len(close) else len(firsts)
        if not len(close):
            firsts = np.concatenate([firsts, values_D[None]])
    return groups


def near_duplicates(
    samples: SampleTable, suspects_S: Ints, unit_ND: Features, images: TrainingImages
) -> list[NearDuplicate]:
    """Near duplicates of suspects with another given label, each pair once, the highest cosines first.

    suspects_S: rows, worst first; the first MOST_SUSPECTS count. Where the images can be read, the pixels must agree as
    well: a trained network also gives high cosines to different images of one class.
    """
    rows_S = suspects_S[:MOST_SUSPECTS]
    other_SM, cosine_SM = nearest(unit_ND, rows_S)
    found = (cosine_SM >= NEAR) & (samples.given_N[other_SM] != samples.given_N[rows_S][:, None])
    seen: set[tuple[int, int]] = set()
    pairs = []
    for place, column in zip(*np.nonzero(found), strict=True):
        one, other = int(rows_S[place]), int(other_SM[place, column])
        if (min(one, other), max(one, other)) not in seen:
            seen.add((min(one, other), max(one, other)))
            pairs.append((float(cosine_SM[place, column]), one, other))
    pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    if images.problem:
        return [NearDuplicate(one, other, cosine, None) for cosine, one, other in pairs]
    return list(_alike(pairs[:MOST_READ], images))


def _alike(pairs: Sequence[tuple[float, int, int]], images: TrainingImages) -> Iterator[NearDuplicate]:
    """The pairs whose pixels agree, and those with an image that cannot be read."""
    grey: dict[int, NDArray[np.float64] | None] = {}
    for cosine, one, other in pairs:
        for row in (one, other):
            if row not in grey:
                grey[row] = _grey(images, row)
        first, second = grey[one], grey[other]
        pixels = None if first is None or second is None else float(first @ second)
        if pixels is None or pixels >= ALIKE:
            yield NearDuplicate(one, other, cosine, pixels)


def _grey(images: TrainingImages, row: int) -> NDArray[np.float64] | None:
    """The grey pixels of a small copy, without their mean, as a unit vector; None where it cannot be read."""
    try:
        image = images.image(row).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    except BadImage:
        return None
    values = np.asarray(image, np.float64).ravel()
    values = values - values.mean()
    return np.asarray(values / max(float(np.linalg.norm(values)), 1e-12))


def near_duplicates_table(run: Run, samples: SampleTable, pairs: Sequence[NearDuplicate]) -> pa.Table:
    """One row per pair: index, path and given label of both, cosine, pixel_correlation."""
    columns: dict[str, pa.Array] = {}
    for prefix, rows in (("", [pair.row for pair in pairs]), ("other_", [pair.other for pair in pairs])):
        given = [int(samples.given_N[row]) for row in rows]
        columns[f"{prefix}index"] = pa.array([int(samples.index_N[row]) for row in rows], pa.int64())
        columns[f"{prefix}path"] = pa.array([samples.paths[row] for row in rows], pa.string())
        columns[f"{prefix}given_label"] = pa.array(given, pa.int64())
        columns[f"{prefix}given_class"] = pa.array([run.class_names[k] for k in given], pa.string())
    columns["cosine"] = pa.array([pair.cosine for pair in pairs], pa.float64())
    columns["pixel_correlation"] = pa.array([pair.pixels for pair in pairs], pa.float64())
    return pa.table(columns)
