"""What a finished run says of its training samples and of itself, as columns and a summary."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastcpc import distributed
from fastcpc.cleaner.metrics import precision_recall_accuracy
from fastcpc.data.dataset import AnySplit
from fastcpc.data.labels.noise import Labels
from fastcpc.engine.cleaning import Cleaning
from fastcpc.engine.scoring import SampleScores

Column = NDArray[Any] | list[str] | None


def clean_columns(
    train: AnySplit, labels: Labels, pair: SampleScores, cleaning: Cleaning | None, tau: float
) -> dict[str, Column]:
    """The columns of clean_probabilities.parquet, a row a training sample in the data set's order.

    clean_probability is the mean of both networks' ruling cleaner; a run without one (``cleaner.kind=none``) has no
    such probability, and the softmax of the given label stands in for it. is_clean: clean_probability > tau.
    """
    p_given_N = _numpy(pair.prob_given_N)
    clean_N = (
        p_given_N
        if cleaning is None
        else np.mean([_numpy(prob_N) for prob_N in cleaning.clean_prob_of_network], axis=0)
    )
    probs = cleaning.clean_probs if cleaning else {}
    cleaner_columns: dict[str, Column] = {
        f"q_{name}_{i + 1}": _numpy(probs[name][i]) if name in probs else None
        for name in dict.fromkeys(("gmm", "cpc", *probs))
        for i in (0, 1)
    }
    columns: dict[str, Column] = {
        "index": train.source_index,
        "path": list(train.names),
        "given_label": labels.given,
        "predicted_label": pair.predicted_N.cpu().numpy(),
        **cleaner_columns,
        "clean_probability": clean_N,
        "p_given": p_given_N,
        "p_predicted": _numpy(pair.prob_predicted_N),
        "is_clean": clean_N > tau,
    }
    if labels.trusted is not None:
        columns["true_label"] = labels.trusted
    return columns


def suspected(held_clean_N: NDArray[Any], predicted_N: NDArray[Any], given_N: NDArray[Any]) -> NDArray[np.bool_]:
    """Which labels are suspected to be wrong: those not held clean where both networks together predict another class.

    A label that the networks themselves would give is no error that anyone could mend; cleanlab's filters agree.
    """
    return np.asarray(~held_clean_N & (predicted_N != given_N))


def summarise(
    history: dict[str, Any], device: torch.device, columns: dict[str, Column], labels: Labels
) -> dict[str, Any]:
    """summary.json: best, last-10 and final test accuracy in percent, seconds of all epochs, suspected labels.

    past: test_top1 of each epoch, their seconds in all (without loading the data, checkpoints and the final cleaning),
    best_epoch.

    suspected: how many labels are, by the function of that name; suspected_precision, suspected_recall: the share of
    those that are wrong, and of the wrong ones that are suspected, among the samples whose true label is known, where
    there are any.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    suspected_N = suspected(*(np.asarray(columns[name]) for name in ("is_clean", "predicted_label", "given_label")))
    top1 = history["test_top1"]
    summary = {
        "best_top1": max(top1),
        "best_epoch": history["best_epoch"],
        "last10_top1": float(np.mean(top1[-10:])),
        "final_top1": top1[-1],
        "epochs": len(top1),
        "seconds": history["seconds"],
        "world_size": distributed.world_size(),
        "device": name,
        "suspected": int(suspected_N.sum()),
        "finished": True,
    }
    if labels.known is not None:
        known_N = labels.known >= 0
        wrong_N = (labels.given != labels.known)[known_N]
        precision, recall, _ = precision_recall_accuracy(suspected_N[known_N], wrong_N)
        summary |= {"suspected_precision": precision, "suspected_recall": recall}
    return summary


def describe_suspects(summary: dict[str, Any], num_samples: int) -> str:
    """The suspected labels of a summary, in a line."""
    text = f"{summary['suspected']} of {num_samples} labels are suspected to be wrong"
    precision, recall = summary.get("suspected_precision"), summary.get("suspected_recall")
    if precision is not None:
        text += f"; {100 * precision:.1f} % of them are"
    if recall is not None:
        text += f"; {100 * recall:.1f} % of all wrong labels are among them"
    return text


def _numpy(values: Tensor) -> NDArray[np.float32]:
    return values.float().cpu().numpy()
