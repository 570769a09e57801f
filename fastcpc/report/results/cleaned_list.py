"""The samples that are kept, in the form that their own data set reads: a list, a file of labels, or a folder of links.

Which samples are kept is the caller's decision. Every other part of the data set (val, test, classes not in use)
stays unchanged. So a new run on the written list is evaluated on the same images.
"""

import csv
import io
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa

from fastcpc.arrays import Bools
from fastcpc.atomic_io import replace_file, write_failure
from fastcpc.data.datasets.clothing1m import IMAGES
from fastcpc.data.datasets.listing import Listing, find_file, read_lines
from fastcpc.data.labels.noise import make_labels
from fastcpc.data.registry import dataset_spec, list_images, load_dataset
from fastcpc.engine.outputs.sample_table import SampleTable
from fastcpc.errors import InputError
from fastcpc.report.results.run import Run
from fastcpc.report.results.suspect_files import parquet_bytes

LIST_ENDINGS = (".csv", ".parquet")


def write_cleaned(run: Run, samples: SampleTable, is_issue_N: Bools, target: Path) -> str:
    """Write the cleaned list of a run; returns how it is used, in a line.

    digits, CIFAR: target.csv "index,label" of the whole training set for noise.kind=file; suspects get the predicted
    class, for such a data set cannot leave samples out. clothing1m: a key list. webvision: the filelist without the
    suspects. imagefolder: target.csv or .parquet for data.list (with target.classes.txt), or a new folder of links.
    InputError where the data set has no such form, or is not where the run found it; RunError on a failed write.
    """
    name = run.config.data.name
    if dataset_spec(name).list_files is None:
        return _write_labels(run, samples, is_issue_N, target)
    if name != "imagefolder" and run.config.noise.kind != "none":
        raise InputError(
            f"--cleaned-list: the labels of this run come from noise.kind={run.config.noise.kind}, not from {name}'s "
            "own lists; --out has them"
        )
    if name == "clothing1m":
        return _write_keys(run, samples, is_issue_N, target)
    if name == "webvision":
        return _write_filelist(run, samples, is_issue_N, target)
    listing = list_images(run.config.data)
    if target.suffix.lower() in LIST_ENDINGS:
        return _write_list(run, samples, is_issue_N, target, listing)
    if target.suffix:
        raise InputError(
            f"--cleaned-list {target}: use .csv or .parquet, or a name without ending for a folder of links"
        )
    return _write_links(run, samples, is_issue_N, target, listing)


def _write_labels(run: Run, samples: SampleTable, is_issue_N: Bools, target: Path) -> str:
    if target.suffix.lower() != ".csv":
        raise InputError(f"--cleaned-list {target}: a label file of {run.config.data.name} must end in .csv")
    config = run.config
    dataset = load_dataset(config.data)
    labels_A = make_labels(dataset, config.noise, config.run.seed).given  # of all samples, data.subset not yet taken
    place = {index: row for row, index in enumerate(dataset.train.source_index.tolist())}
    rows_N = np.array([place.get(index, -1) for index in samples.index_N.tolist()])
    if (rows_N < 0).any() or (labels_A[rows_N] != samples.given_N).any():
        raise InputError(
            f"{config.data.name} has other labels now than this run was trained on: no label file is written"
        )
    labels_A[rows_N[is_issue_N]] = samples.predicted_N[is_issue_N]
    lines = [
        f"{index},{label}" for index, label in zip(dataset.train.source_index.tolist(), labels_A.tolist(), strict=True)
    ]
    replace_file(target, "\n".join(["index,label", *lines, ""]).encode())
    return (
        f"all {len(labels_A):,} labels, suspects with the predicted class (this data set cannot leave samples out): "
        f"train with noise.kind=file noise.file={target}"
    )


def _write_keys(run: Run, samples: SampleTable, is_issue_N: Bools, target: Path) -> str:
    kept = [samples.paths[row] for row in np.flatnonzero(~is_issue_N).tolist()]
    keys = [path if path.startswith(IMAGES) else f"{IMAGES}{path}" for path in kept]
    replace_file(target, "".join(f"{key}\n" for key in keys).encode())
    return f"{len(keys):,} keys: put it in the place of noisy_train_key_list.txt"


def _write_filelist(run: Run, samples: SampleTable, is_issue_N: Bools, target: Path) -> str:
    data = run.config.data
    if data.flickr:
        raise InputError(
            "--cleaned-list: with data.flickr there are two filelists; train and clean with one, or use --out"
        )
    name = "train_filelist_google.txt"
    base = Path(data.root).expanduser()
    original = find_file(name, [base / "info", base])
    if original is None:
        raise InputError(f"{base}: {name} is not there any more; its lines without the suspects would be written")
    dropped = {samples.paths[row] for row in np.flatnonzero(is_issue_N).tolist()}
    kept = [line.text for line in read_lines(original) if line.text.rsplit(None, 1)[0] not in dropped]
    replace_file(target, "".join(f"{text}\n" for text in kept).encode())
    return f"{len(kept):,} lines, classes that were not in use included: put it in the place of info/{name}"


def _write_list(run: Run, samples: SampleTable, is_issue_N: Bools, target: Path, listing: Listing) -> str:
    """path, label, split; the classes in their order are in a file of their own."""
    classes = target.with_suffix(".classes.txt")
    if any("\n" in name or name != name.strip() for name in (*listing.class_ids, *listing.class_names)):
        raise InputError(f"--cleaned-list {target}: class names with line ends or outer blanks need a folder of links")
    rows = [
        (samples.paths[row], listing.class_ids[samples.given_N[row]], "train")
        for row in np.flatnonzero(~is_issue_N).tolist()
    ]
    rows += [(path, listing.class_ids[label], split) for split, path, label in _other_parts(listing)]
    if target.suffix.lower() == ".parquet":
        columns = zip(("path", "label", "split"), zip(*rows, strict=True), strict=True)
        data = parquet_bytes(pa.table({name: pa.array(values, pa.string()) for name, values in columns}))
    else:
        odd = next((path for path, _, _ in rows if path != path.strip()), None)
        if odd is not None:
            raise InputError(f"--cleaned-list {target}: {odd[:80]!r} begins or ends with a blank; use .parquet")
        buffer = io.StringIO(newline="")
        csv.writer(buffer).writerows([("path", "label", "split"), *rows])
        data = buffer.getvalue().encode()
    lines = [
        name if name == class_id else f"{class_id} {name}"
        for class_id, name in zip(listing.class_ids, listing.class_names, strict=True)
    ]
    replace_file(classes, "".join(f"{line}\n" for line in lines).encode())
    replace_file(target, data)
    return f"{int((~is_issue_N).sum()):,} training images: train with data.list={target} data.classes={classes}"


def _write_links(run: Run, samples: SampleTable, is_issue_N: Bools, target: Path, listing: Listing) -> str:
    """train/CLASS/... and test/CLASS/...: links to the images, in the folder of the class that training was given."""
    if run.config.data.list:
        raise InputError(f"--cleaned-list {target}: this run was trained on a list; give a .csv or .parquet")
    base = Path(run.config.data.root).expanduser().resolve()
    links = [
        (_linked("train", samples.paths[row], listing.class_ids[samples.given_N[row]]), samples.paths[row])
        for row in np.flatnonzero(~is_issue_N).tolist()
    ]
    links += [(_linked(split, path, listing.class_ids[label]), path) for split, path, label in _other_parts(listing)]
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
    return f"links to {int((~is_issue_N).sum()):,} training images: train with data.root={target}"


def _linked(split: str, path: str, class_id: str) -> Path:
    """Where the link to an image is: its own path below the class, with the part of the data set in front."""
    parts = Path(path).parts
    inner = parts[1:] if len(parts) > 2 and parts[0] != class_id and class_id == parts[1] else parts
    return Path(split, *inner) if inner[0] == class_id else Path(split, class_id, *parts)


def _other_parts(listing: Listing) -> list[tuple[str, str, int]]:
    """(split, path, label) of every image that is not for training; a part that goes by two names once."""
    seen: set[int] = {id(listing.splits["train"])}
    rows = []
    for name, split in listing.splits.items():
        if id(split) not in seen:
            rows += [(name, path, label) for path, label in zip(split.names, split.labels.tolist(), strict=True)]
        seen.add(id(split))
    return rows
