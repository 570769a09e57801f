"""metrics.jsonl: the keys that every line has, and which values they take. The run log writes it, reports read it."""

from typing import Any, Literal

METRICS_FILE = "metrics.jsonl"
Kind = Literal["number", "text", "pair", "seconds"]

# In the order of a line. A pair is [network 1, network 2]; null where a value is unknown.
METRIC_KEYS: dict[str, Kind] = {
    "epoch": "number",
    "phase": "text",
    "lr": "number",
    "test_top1": "number",
    "test_top5": "number",
    "net1_top1": "number",
    "net2_top1": "number",
    "prototype_top1": "number",
    "labelled": "pair",
    "auc_gmm": "pair",
    "auc_cpc": "pair",
    "partition_precision": "pair",
    "partition_recall": "pair",
    "seconds": "seconds",
    "images_per_second": "number",
    "data_wait": "number",
    "training_flops": "number",  # since the first epoch
}
SECONDS_KEYS = ("score", "clean", "train", "eval", "total")
_AUC = "auc_"


def auc_key(cleaner: str) -> str:
    """The key of a cleaner's AUC."""
    return f"{_AUC}{cleaner}"


def pair_keys(first: str, second: str) -> tuple[str, str]:
    """The keys of the KL divergence between two cleaners of a run, in the order in which they run, and of their
    agreement."""
    return f"kl_{first}_{second}", f"agreement_{first}_{second}"


def auc_cleaners(line: dict[str, Any]) -> list[str]:
    """The cleaners of which a line has the AUC, in its order."""
    return [key.removeprefix(_AUC) for key, value in line.items() if key.startswith(_AUC) and value is not None]


def has_right_types(line: dict[str, Any]) -> bool:
    """Whether each value of a line is null or of the kind that its key takes; keys beyond METRIC_KEYS may hold any."""
    known = METRIC_KEYS | {auc_key(cleaner): "pair" for cleaner in auc_cleaners(line)}
    return all(_fits(kind, line.get(key)) for key, kind in known.items())


def is_number(value: Any) -> bool:
    """Whether a value of a JSON file is a number or null."""
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _fits(kind: str, value: Any) -> bool:
    if value is None:
        return True
    if kind == "text":
        return isinstance(value, str)
    if kind == "seconds":
        return isinstance(value, dict) and all(is_number(item) for item in value.values())
    if kind == "pair":
        return isinstance(value, list) and all(is_number(item) for item in value)
    return is_number(value)
