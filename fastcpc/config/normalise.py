"""The text of ``data.normalise``: auto, data, or mean and std per channel."""

import math

AUTO, DATA = "auto", "data"
FORM = "auto, data, or MEAN/STD per channel, such as 0.5,0.5,0.5/0.5,0.5,0.5"

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]


def normalise_text(mean: tuple[float, ...], std: tuple[float, ...]) -> str:
    """Mean and std as the setting has them; ``read_normalise`` gives the same floats."""
    return "/".join(",".join(str(value) for value in part) for part in (mean, std))


def read_normalise(text: str) -> Normalisation | None:
    """Mean and std, (C,) each, of pixels scaled to [0, 1]; None for auto and data. ValueError for another text."""
    if text in (AUTO, DATA):
        return None
    parts = [tuple(float(value) for value in part.split(",")) for part in text.split("/")]
    if len(parts) != 2 or len(parts[0]) != len(parts[1]) or not all(map(math.isfinite, parts[0] + parts[1])):
        raise ValueError(text)
    mean, std = parts
    if min(std) <= 0:
        raise ValueError(text)
    return mean, std
