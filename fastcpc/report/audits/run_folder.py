"""Writes the run folder of an audit, with the files that fastcpc-clean, fastcpc-report and fastcpc-eval read."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastcpc.atomic_io import replace_file, replace_file_in_parts
from fastcpc.auditing.result import AuditResult
from fastcpc.config.load import to_yaml
from fastcpc.config.schema import CleanerConfig, Config, CpcConfig, DataConfig, ModelConfig, RunConfig, TrainConfig
from fastcpc.data.dataset import Dataset, EmbeddingSplit
from fastcpc.data.embeddings.array_file import EmbeddingArray
from fastcpc.data.embeddings.label_list import LabelTable
from fastcpc.data.labels.noise import Labels
from fastcpc.data.loaders.factory import make_loader
from fastcpc.data.registry import load_dataset
from fastcpc.data.sampler import sequential_batches
from fastcpc.engine.checkpoint.store import CheckpointStore
from fastcpc.engine.evaluate import Accuracy, evaluate
from fastcpc.engine.numerics import Numerics
from fastcpc.engine.outputs.data_record import identity_of, write_record
from fastcpc.engine.outputs.environment import describe_environment
from fastcpc.engine.outputs.labels_file import LABELS_FILE, write_labels
from fastcpc.engine.outputs.pred_probs import PRED_PROBS_FILE
from fastcpc.engine.outputs.run_dir import write_json
from fastcpc.engine.outputs.sample_table import CLEANING_FILE, SampleTable
from fastcpc.models.build import build_network
from fastcpc.models.network import Network
from fastcpc.report.audits.record import AUDIT_FILE, AuditRecord, record_of
from fastcpc.report.results.suspect_files import parquet_bytes

LABEL_TABLE = "labels.parquet"  # in the run folder: all audited samples as training samples
SMALL_EMBEDDING = 64
PART_ROWS = 8192


@dataclass(frozen=True)
class AuditInput:
    """What is audited. file: of the embeddings. root: folder of the images, or empty. test_files: embeddings and labels
    of a test set, or empty."""

    array: EmbeddingArray
    table: LabelTable
    file: Path
    root: str
    test_files: tuple[str, str] = ("", "")


def audit_config(folder: Path, data: AuditInput, seed: int) -> Config:
    """The settings of the run folder: a linear head on these embeddings, all of them training samples."""
    test_embeddings, test_labels = (str(Path(name).expanduser().resolve()) if name else "" for name in data.test_files)
    return Config(
        run=RunConfig(name=folder.name, dir=str(folder), seed=seed),
        data=DataConfig(
            name="embeddings",
            root=data.root,
            embeddings=str(data.file.expanduser().resolve()),
            labels=str((folder / LABEL_TABLE).resolve()),
            test_embeddings=test_embeddings,
            test_labels=test_labels,
            holdout=0.0,
        ),
        model=ModelConfig(name="linear"),
        cleaner=CleanerConfig(kind="confusion"),
        cpc=CpcConfig(embedding_dim=max(1, min(SMALL_EMBEDDING, data.array.shape[1] - 1))),
        train=TrainConfig(epochs=1, warmup_epochs=0, score_batch_size=4096),
        device="cpu",
        precision="fp32",
    )


def write_audit(folder: Path, data: AuditInput, result: AuditResult, seed: int) -> None:
    """Write everything but suspects.csv and report.html; summary.json last. RunError when a file cannot be written."""
    config = audit_config(folder, data, seed)
    table, num_classes = data.table, len(data.table.class_names)
    replace_file(folder / LABEL_TABLE, parquet_bytes(_label_columns(table)))
    replace_file(folder / "config.yaml", to_yaml(config).encode())
    write_json(folder / "environment.json", describe_environment())
    record = record_of(result)
    record.write(folder / AUDIT_FILE)
    labels, index_N = _labels(table, seed), np.arange(len(table.labels))
    write_labels(folder / LABELS_FILE, labels, index_N, table.class_names)
    _samples(table, labels, result).write(folder / CLEANING_FILE)
    _write_pred_probs(folder / PRED_PROBS_FILE, result.pred_probs)
    dataset = load_dataset(config.data)
    write_record(folder, identity_of(config, dataset, labels))
    networks = [_network(config, dataset, head, num_classes, number) for number, head in enumerate(mean_heads(result))]
    _write_checkpoint(folder, config, networks, num_classes)
    accuracy = _accuracy(config, dataset, networks) if data.test_files[0] else None
    write_json(folder / "summary.json", _summary(table, result, record, accuracy))


def _label_columns(table: LabelTable) -> pa.Table:
    num_rows = len(table.labels)
    columns = {
        "index": pa.array(np.arange(num_rows)),
        "path": pa.array(table.names, pa.string()),
        "label": pa.array(table.labels),
        "class": pa.array([table.class_names[label] for label in table.labels.tolist()], pa.string()),
        "split": pa.array(["train"] * num_rows, pa.string()),
    }
    if table.trusted is not None:
        columns["trusted_label"] = pa.array([None if k < 0 else k for k in table.trusted.tolist()], pa.int64())
    return pa.table(columns)


def _labels(table: LabelTable, seed: int) -> Labels:
    known = table.trusted
    labels = Labels(table.labels, None, "none", 0.0, None, seed)
    if known is None:
        return labels
    has = known >= 0
    whole, rate = bool(has.all()), float((table.labels != known)[has].mean())
    return replace(labels, trusted=known if whole else None, partly=None if whole else known, actual_rate=rate)


def _samples(table: LabelTable, labels: Labels, result: AuditResult) -> SampleTable:
    """The table per sample. p_given is the label score, by which suspects are ranked."""
    rows = np.arange(len(table.labels))
    return SampleTable(
        index_N=rows,
        paths=table.names,
        given_N=table.labels,
        predicted_N=result.predicted_label,
        q_N2={},
        clean_prob_N=np.asarray(result.clean_probability, np.float64),
        p_given_N=np.asarray(result.label_score, np.float64),
        p_predicted_N=result.pred_probs[rows, result.predicted_label],
        is_clean_N=~result.is_label_issue,
        true_N=labels.trusted,
    )


def _write_pred_probs(path: Path, probs_NK: NDArray[np.float32]) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": probs_NK.shape}

    class Sink(bytearray):
        def write(self, data: bytes) -> None:
            self.extend(data)

    sink = Sink()
    np.lib.format.write_array_header_1_0(sink, header)
    pieces = (
        probs_NK[first : first + PART_ROWS].astype("<f4").tobytes() for first in range(0, len(probs_NK), PART_ROWS)
    )
    parts = (part for group in ((bytes(sink),), pieces) for part in group)
    replace_file_in_parts(path, parts, len(sink) + 4 * probs_NK.size)


def mean_heads(result: AuditResult) -> list[tuple[Tensor, Tensor]]:
    """Weight (D, K) and bias (K,), float64, for embeddings as they are in the file: the mean head of each repeat.

    The audit's own prediction is the mean softmax of all heads, which differs in few samples.
    """
    heads, rows = result.heads, result.rows
    repeats = heads.fold_NR.shape[1]
    scale_D1, mean_D = rows.scale_D.double()[:, None], rows.mean_D.double()
    means = []
    for weight_DHK, bias_HK in zip(
        heads.weight_DHK.double().chunk(repeats, 1), heads.bias_HK.double().chunk(repeats), strict=True
    ):
        weight_DK = weight_DHK.mean(1) * scale_D1
        means.append((weight_DK, bias_HK.mean(0) - mean_D @ weight_DK))
    return means


def _network(config: Config, dataset: Dataset, head: tuple[Tensor, Tensor], num_classes: int, number: int) -> Network:
    """A network whose classifier is this head, on embeddings standardised as the data set has them."""
    weight_DK, bias_K = (part.double() for part in head)
    mean_D, std_D = (torch.tensor(part, dtype=torch.float64) for part in (dataset.mean, dataset.std))
    network = build_network(
        config.model, config.cpc, num_classes=num_classes, in_channels=len(mean_D), image_size=1, seed=number
    )
    with torch.no_grad():
        network.classifier.weight.copy_((weight_DK * std_D[:, None]).T)
        network.classifier.bias.copy_(bias_K + mean_D @ weight_DK)
    return network


def _write_checkpoint(folder: Path, config: Config, networks: Sequence[Network], num_classes: int) -> None:
    state: dict[str, Any] = {
        "config": to_yaml(config),
        "position": {"epoch": 1, "stage": 0, "step": 0},
        "record": {},
        "past": {},
        "snapshot": {},
        "members": [],
    }
    header = {"model": config.model.name, "num_classes": str(num_classes)}
    store = CheckpointStore(folder, 0, header)
    store.save(0, [network.state_dict() for network in networks], state, best=True)


def _accuracy(config: Config, dataset: Dataset, networks: Sequence[Network]) -> Accuracy:
    test, cpu = dataset.tests["test"], torch.device("cpu")
    assert isinstance(test, EmbeddingSplit)
    loader = make_loader(test, dataset, config.data, config.augment, cpu)
    stream = loader.stream(sequential_batches(loader.num_samples, config.train.score_batch_size), ("test",), 0)
    return evaluate(networks, stream, torch.from_numpy(test.labels), Numerics(cpu, torch.float32))


def _summary(table: LabelTable, result: AuditResult, record: AuditRecord, accuracy: Accuracy | None) -> dict[str, Any]:
    """summary.json: the keys of a run. Without a test set, top-1 is the share of out-of-sample predictions that equal
    the given label."""
    agreement = 100.0 * float((result.pred_probs.argmax(1) == table.labels).mean())
    top1 = agreement if accuracy is None else accuracy.top1
    return {
        "kind": "audit",
        "best_top1": top1,
        "best_epoch": 0,
        "last10_top1": top1,
        "final_top1": top1,
        "top1_of": "out-of-sample predictions, against given labels" if accuracy is None else "test",
        "epochs": 1,
        "seconds": result.seconds,
        "world_size": 1,
        "device": "cpu",
        "noise_rate": record.noise_rate,
        "noise_interval": record.noise_interval.tolist(),
        "suspected": int(result.is_label_issue.sum()),
        "finished": True,
    }
