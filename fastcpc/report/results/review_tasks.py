"""Suspects of a run as tasks for Label Studio, for fastcpc-clean --label-studio.

Label Studio serves files below a storage, which must be a folder inside its document root, not the root itself. So the
storage is the folder of the images, and addresses begin with its name.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from fastcpc.arrays import Ints
from fastcpc.atomic_io import replace_file
from fastcpc.data.containers.by_name import is_member
from fastcpc.data.corrections.label_studio import ReviewTask, labelling_interface, tasks_json
from fastcpc.data.image_files import BadImage
from fastcpc.data.registry import dataset_spec
from fastcpc.engine.outputs.sample_table import SampleTable
from fastcpc.errors import InputError
from fastcpc.report.results.images import TrainingImages, encode, image_folder
from fastcpc.report.results.run import Run

LOCAL_FILES = "/data/local-files/?d="  # how Label Studio addresses files below its document root


def interface_file(target: Path) -> Path:
    """The file with the labelling interface, beside the tasks."""
    return target.with_suffix(".xml")


def write_tasks(run: Run, samples: SampleTable, rows: Ints, target: Path) -> str:
    """Write the tasks and the labelling interface; returns one line that says how to use them.

    rows: of the samples, in the order of the tasks. Image files are addressed below their folder; images in memory, in
    container files and outside that folder are copied into the tasks. InputError where these cannot be read. RunError
    on a failed write.
    """
    folder = _served_folder(run, (samples.paths[row] for row in rows.tolist()))
    images = TrainingImages(run, samples, run.config.data.root) if folder is None else None
    if images is not None and images.problem:
        raise InputError(f"--label-studio: {images.problem}; give the data set with --root")

    def address(row: int) -> str:
        if folder is not None:
            return LOCAL_FILES + quote(f"{folder.name}/{samples.paths[row]}")
        assert images is not None
        try:
            return encode(images.image(row))[0]
        except BadImage as error:
            raise InputError(f"--label-studio: {samples.paths[row]}: {error}") from None

    tasks = [
        ReviewTask(
            int(samples.index_N[row]),
            samples.paths[row],
            run.class_names[int(samples.given_N[row])],
            run.class_names[int(samples.predicted_N[row])],
            float(samples.p_predicted_N[row]),
            address(row),
        )
        for row in rows.tolist()
    ]
    replace_file(target, tasks_json(tasks, f"fastcpc {run.path.resolve().name}"))
    replace_file(interface_file(target), labelling_interface(run.class_names))
    usage = f"{len(tasks):,} tasks for Label Studio written to {target}, its interface to {interface_file(target)}"
    if folder is None:
        return usage
    return (
        f"{usage}; start it with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true "
        f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={folder.parent}, and add {folder} as a storage of local files"
    )


def _served_folder(run: Run, paths: Iterable[str]) -> Path | None:
    """The folder whose files Label Studio serves; None where images are copied into the tasks."""
    data = run.config.data
    if data.name != "embeddings" and dataset_spec(data.name).list_files is None:
        return None
    try:
        folder = Path(os.path.abspath(image_folder(data)))
    except InputError as error:
        raise InputError(f"--label-studio: {error}; give it with --root") from None
    if not folder.name or any(is_member(path) or path.startswith(("/", "../")) for path in paths):
        return None
    return folder
