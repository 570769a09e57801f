"""fastcpc-audit: embed the images if necessary, audit the labels, and write the run folder with its report."""

import argparse
import logging
from pathlib import Path

import numpy as np

from fastcpc import audit
from fastcpc.atomic_io import replace_file
from fastcpc.data.embeddings.array_file import open_embeddings
from fastcpc.data.embeddings.label_table import read_embedding_labels
from fastcpc.data.embeddings.record import EMBED_FILE, EMBEDDINGS, INDEX, embedded_root
from fastcpc.data.embeddings.statistics import check_finite
from fastcpc.engine.embedding.command import console, embed_with_options
from fastcpc.engine.embedding.source import list_source
from fastcpc.errors import InputError
from fastcpc.report.audits.record import record_of
from fastcpc.report.audits.run_folder import AuditInput, write_audit
from fastcpc.report.audits.text import CAUTION, describe_audit, next_steps
from fastcpc.report.html.page import run_page
from fastcpc.report.results.run import read_run
from fastcpc.report.results.samples import read_samples
from fastcpc.report.results.suspect_files import csv_bytes
from fastcpc.report.results.suspects import find_suspects, suspects_table

logger = logging.getLogger("fastcpc")


def run(options: argparse.Namespace) -> int:
    """Audit and write; returns the exit code. options: of ``fastcpc.cli.embeddings.audit``."""
    with console():
        _make_folder(options.out)
        data = _input(options)
        table, num_classes = data.table, len(data.table.class_names)
        try:
            result = audit(data.array, table.labels, num_classes=num_classes, seed=options.seed)
        except ValueError as error:
            raise InputError(str(error)) from None
        write_audit(options.out, data, result, options.seed)
        _write_results(options.out)
    lines = describe_audit(record_of(result), table.class_names, table.labels, result.is_label_issue)
    print("\n".join([*lines, *next_steps(options.out, int(result.is_label_issue.sum())), CAUTION]))
    return 0


def _make_folder(folder: Path) -> None:
    """Make the run folder before the long work, so that a wrong place is an error at once."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {folder}: cannot be created ({error.strerror}); give another folder") from None


def _input(options: argparse.Namespace) -> AuditInput:
    """The embeddings with their labels; images are embedded into RUN/embeddings first."""
    if options.embeddings:
        file, labels_file, root, keys = options.embeddings, options.labels, options.root, ("--embeddings", "--labels")
    else:
        folder = Path(options.source).expanduser()
        if not (folder / EMBED_FILE).is_file():
            folder = options.out / "embeddings"
            source = list_source(options.source, options.label_key, options.image_key)
            embed_with_options(source, folder, options)
        root = options.root or embedded_root(folder / EMBED_FILE)
        file, labels_file, keys = str(folder / EMBEDDINGS), str(folder / INDEX), (str(folder), str(folder))
    array = open_embeddings(keys[0], file)
    table = read_embedding_labels(keys[1], labels_file, array)
    check_finite(f"{keys[0]} {file}", array, np.arange(len(array)))
    if array.shape[1] < 2:
        raise InputError(f"{file}: one dimension; an audit needs two or more")
    return AuditInput(array, table, Path(file), root, (options.test_embeddings, options.test_labels))


def _write_results(folder: Path) -> None:
    """suspects.csv and report.html, as fastcpc-clean and fastcpc-report write them."""
    run = read_run(folder)
    samples = read_samples(run)
    suspects = find_suspects(run, samples)
    replace_file(folder / "suspects.csv", csv_bytes(suspects_table(run, samples, suspects, suspects.rows)))
    replace_file(folder / "report.html", run_page(run).encode())
