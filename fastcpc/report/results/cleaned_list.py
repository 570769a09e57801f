"""Write the samples without suspects in the data set's own list format, for fastcpc-clean --cleaned-list.

The other parts of the data set (val, test, unused classes) stay unchanged, so a new run has the same test images.
"""

import csv
import io
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from fastcpc.arrays import Bools
from fastcpc.atomic_io import replace_file, write_failure
from fastcpc.config.names import DATASETS
from fastcpc.data.dataset import Dataset
from fastcpc.data.registry import dataset_spec
from fastcpc.engine.outputs.sample_table import SampleTable
from fastcpc.errors import InputError
from fastcpc.report.results.array_labels import check_labels_name, corrected, whole_labels, write_array_labels
from fastcpc.report.results.kept_samples import kept_samples, left_out_of, load_same_data
from fastcpc.report.results.run import Run
from fastcpc.report.results.suspect_files import parquet_bytes

LIST_ENDINGS = (".csv", ".parquet")


def write_cleaned(run: Run, samples: SampleTable, is_issue_N: Bools, target: Path) -> str:
    """Write the cleaned list of a run; returns one line that says how to use it.

    Arrays: target.csv "index,label" of the whole training set for noise.kind=file; suspects get the predicted class,
    because these data sets cannot omit samples. Images with a list of their own (Clothing1M, WebVision): that list
    without the suspects. Other images: target.csv or .parquet for data.list, with target.classes.txt, or a new folder
    of links.
    InputError where the data set has no such format or its files are missing; RunError on a failed write.
    """
    data, spec = run.config.data, dataset_spec(run.config.data.name)
    if spec.list_files is None:
        return _write_labels(run, samples, is_issue_N, target)
    if spec.list_without is not None:
        require_own_labels(run)
        if data.corrections:
            raise InputError(
                f"--cleaned-list: this run was trained with data.corrections, and {data.name}'s own lists cannot have "
                "corrected labels; add decisions about the suspects to the corrections, and train with these"
            )
        kept = kept_samples(run, samples, is_issue_N, left_out_of(run))
        paths = [path for path, _ in kept.images(samples)]
        content, usage = spec.list_without(data, paths, sorted(set(samples.paths) - set(paths)))
        replace_file(target, content)
        return kept.usage(usage)
    check_list_name(target)
    dataset, _ = load_same_data(run)
    kept = kept_samples(run, samples, is_issue_N, dataset.left_out)
    return kept.usage(write_images(run, kept.images(samples), target, dataset))


def require_own_labels(run: Run) -> None:
    """InputError where the labels of a run are not those of the data set's own lists."""
    if run.config.noise.kind != "none":
        raise InputError(
            f"--cleaned-list: the labels of this run come from noise.kind={run.config.noise.kind}, not from "
            f"{run.config.data.name}'s own lists; use the table of --out"
        )


def check_list_name(target: Path) -> None:
    """InputError where a name is neither that of a list of images nor that of a folder."""
    if target.suffix and target.suffix.lower() not in LIST_ENDINGS:
        raise InputError(
            f"--cleaned-list {target}: use .csv or .parquet, or a name without ending for a folder of links"
        )


def write_images(run: Run, kept: Sequence[tuple[str, int]], target: Path, dataset: Dataset) -> str:
    """Write the list or the folder of links of an image folder. kept: path and label of each training image."""
    as_list = target.suffix.lower() in LIST_ENDINGS
    return (_write_list if as_list else _write_links)(run, kept, target, dataset)


def _write_labels(run: Run, samples: SampleTable, is_issue_N: Bools, target: Path) -> str:
    check_labels_name(run, target)
    corrections = load_same_data(run)[1].corrections
    dataset, labels = whole_labels(run)
    labels_A = corrected(dataset, labels.given, corrections)
    place = {index: row for row, index in enumerate(dataset.train.source_index.tolist())}
    rows_N = np.array([place.get(index, -1) for index in samples.index_N.tolist()])
    if (rows_N < 0).any() or (labels_A[rows_N] != samples.given_N).any():
        raise InputError(
            f"{run.config.data.name} has other labels than this run was trained on; restore the data set of the run"
        )
    labels_A[rows_N[is_issue_N]] = samples.predicted_N[is_issue_N]
    write_array_labels(dataset, labels_A, target)
    return (
        f"all {len(labels_A):,} labels, suspects with the predicted class (this data set cannot omit samples): "
        f"train with noise.kind=file noise.file={target}"
    )


def _write_list(run: Run, kept: Sequence[tuple[str, int]], target: Path, dataset: Dataset) -> str:
    """Columns path, label, split; a second file has the classes in their order. kept: path and label of each image."""
    classes = target.with_suffix(".classes.txt")
    if any("\n" in name or name != name.strip() for name in (*dataset.class_ids, *dataset.class_names)):
        raise InputError(
            f"--cleaned-list {target}: class names with line breaks or outer spaces need a folder of links"
        )
    ids = dataset.class_ids
    rows = [(path, ids[label], "train") for path, label in kept]
    rows += [(path, ids[label], split) for split, path, label in _other_parts(dataset)]
    if target.suffix.lower() == ".parquet":
        columns = zip(("path", "label", "split"), zip(*rows, strict=True), strict=True)
        data = parquet_bytes(pa.table({name: pa.array(values, pa.string()) for name, values in columns}))
    else:
        odd = next((path for path, _, _ in rows if path != path.strip()), None)
        if odd is not None:
            raise InputError(f"--cleaned-list {target}: {odd[:80]!r} begins or ends with a space; use .parquet")
        buffer = io.StringIO(newline="")
        csv.writer(buffer).writerows([("path", "label", "split"), *rows])
        data = buffer.getvalue().encode()
    lines = [
        name if name == class_id else f"{class_id} {name}"
        for class_id, name in zip(ids, dataset.class_names, strict=True)
    ]
    replace_file(classes, "".join(f"{line}\n" for line in lines).encode())
    replace_file(target, data)
    use = f"data.name={run.config.data.name} data.list={target} data.classes={classes}"
    return f"{len(kept):,} training images: train with {use}"


def _write_links(run: Run, kept: Sequence[tuple[str, int]], target: Path, dataset: Dataset) -> str:
    """train/CLASS/... and test/CLASS/...: links to the images in the folders of their given labels."""
    if DATASETS[run.config.data.name].files:
        raise InputError(
            f"--cleaned-list {target}: the images of this run are inside container files; use .csv or .parquet"
        )
    if run.config.data.list:
        raise InputError(f"--cleaned-list {target}: this run was trained on a list; use .csv or .parquet")
    base = Path(run.config.data.root).expanduser().resolve()
    images = [*(("train", path, label) for path, label in kept), *_other_parts(dataset)]
    links = [(_linked(split, path, dataset.class_ids[label]), path) for split, path, label in images]
    staging = target.parent / f".{target.name}.tmp-{os.getpid()}"
    try:
        for inside, path in links:
            place = staging / inside
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(base / path)
        os.rename(staging, target)
    except BaseException as error:
        shutil.rmtree(staging, ignore_errors=True)
        if isinstance(error, OSError):
            raise write_failure(error, target, len(links) * 4096) from error
        raise
    return f"links to {len(kept):,} training images: train with data.name=imagefolder data.root={target}"


def _linked(split: str, path: str, class_id: str) -> Path:
    """Path of the link to an image: split, class, and the path of the image below its class."""
    parts = Path(path).parts
    inner = parts[1:] if len(parts) > 2 and parts[0] != class_id and class_id == parts[1] else parts
    return Path(split, *inner) if inner[0] == class_id else Path(split, class_id, *parts)


def _other_parts(dataset: Dataset) -> list[tuple[str, str, int]]:
    """(split, path, label) of every image outside the training split; a split with two names counts once."""
    seen: set[int] = set()
    rows = []
    for name, split in dataset.tests.items():
        if id(split) not in seen:
            rows += [(name, path, label) for path, label in zip(split.names, split.labels.tolist(), strict=True)]
        seen.add(id(split))
    return rows
