"""Suspects of a run as tasks for Label Studio, for fastcpc-clean --label-studio."""

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
from fastcpc.report.results.images import TrainingImages, encode
from fastcpc.report.results.run import Run

LOCAL_FILES = "/data/local-files/?d="  # how Label Studio addresses files below its document root


def interface_file(target: Path) -> Path:
    """The file with the labelling interface, beside the tasks."""
    return target.with_suffix(".xml")


def write_tasks(run: Run, samples: SampleTable, rows: Ints, target: Path) -> str:
    """Write the tasks and the labelling interface; returns one line that says how to use them.

    rows: of the samples, in the order of the tasks. Image files are addressed below data.root; images in memory, shards
    and Parquet files are copied into the tasks. InputError where these cannot be read. RunError on a failed write.
    """
    data = run.config.data
    no_files = data.name != "embeddings" and dataset_spec(data.name).list_files is None
    no_files = no_files or any(is_member(samples.paths[row]) for row in rows.tolist())
    images = TrainingImages(run, samples, data.root) if no_files else None
    if images is not None and images.problem:
        raise InputError(f"--label-studio: {images.problem}; give the data set with --root")

    def address(row: int) -> str:
        if images is None:
            return LOCAL_FILES + quote(samples.paths[row])
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
    return usage if no_files else f"{usage}; set LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT to the folder of the images"
