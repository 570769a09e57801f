"""Unusable input of ``audit``: one ValueError of one line that names the argument; unusual but usable input works."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from fastcpc import audit
from fastcpc.auditing.api import audit as audit_function

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 5)).astype(np.float32)
Y = np.arange(40) % 2


def with_value(value: float, row: int = 3) -> np.ndarray[Any, Any]:
    values = X.copy()
    values[row, 2] = value
    return values


@pytest.mark.parametrize(
    ("embeddings", "labels", "options", "message"),
    [
        (with_value(np.nan), Y, {}, "embeddings: NaN or inf in row 3"),
        (with_value(-np.inf, 39), Y, {}, "embeddings: NaN or inf in row 39"),
        (X.astype(np.float64) * 1e300, Y, {}, "embeddings: NaN or inf in row 0 (as float32)"),
        (X.astype(object), Y, {}, "embeddings: unsupported dtype (object)"),
        ([[1.0, 2.0], [1.0]], Y, {}, "embeddings: rows of different lengths"),
        (X.astype(np.int64), Y, {}, "embeddings: unsupported dtype (int64)"),
        (X.astype(np.complex64), Y, {}, "embeddings: unsupported dtype (complex64)"),
        (torch.zeros(40, 5, dtype=torch.int32), Y, {}, "embeddings: unsupported dtype (torch.int32)"),
        (X[:, 0], Y, {}, "embeddings: wrong shape (40,)"),
        (X[:, :, None], Y, {}, "embeddings: wrong shape (40, 5, 1)"),
        (X[:, :0], Y, {}, "embeddings: wrong shape (40, 0)"),
        (X[:0], Y[:0], {}, "embeddings: too few samples (0)"),
        (np.ones((40, 5), np.float32), Y, {}, "embeddings: all rows are equal"),
        (X, Y[:-1], {}, "labels: wrong shape (39,); embeddings have 40 rows"),
        (X, Y[:, None], {}, "labels: wrong shape (40, 1)"),
        (X, np.where(np.arange(40) == 7, -1, Y), {}, "labels: negative label (-1, in row 7)"),
        (X, Y + 0.5, {}, "labels: not whole numbers (float64)"),
        (X, np.array(["cat", "dog"] * 20), {}, "labels: not whole numbers (<U3)"),
        (X, [None] * 40, {}, "labels: no label in row 0 (None, 40 rows in all)"),
        (X, np.where(np.arange(40) == 7, np.nan, Y), {}, "labels: no label in row 7 (NaN, 1 row in all)"),
        (X, pd.Series([0, 1, None, 1] * 10, dtype="Int64"), {}, "labels: no label in row 2 ("),
        (X, pd.Categorical(["a", "b", None, "b"] * 10), {}, "labels: no label in row 2 (no category, 10 rows in all)"),
        (X, pd.Series(Y + 1, dtype="category"), {}, "labels: categories are numbers (1, 2) and not 0 to K - 1"),
        (X, pd.Categorical(Y, categories=[1, 0]), {}, "labels: categories are numbers (1, 0) and not 0 to K - 1"),
        (X, pd.Series(["a", "b"] * 20), {}, "labels: not whole numbers ("),
        (X, np.ma.masked_equal(Y, 1), {}, "labels: has masked values"),
        (np.ma.masked_greater(X, 2.0), Y, {}, "embeddings: has masked values"),
        (X, torch.from_numpy(Y).bfloat16(), {}, "labels: cannot become a NumPy array ("),
        (X, Y + 1, {}, "labels: labels are 1 to 2, without a label 0: labels look 1-based; subtract 1, or give num_cl"),
        (X, Y + 1, {"num_classes": 2}, "labels: label 2 in row 1, but num_classes is 2; labels look 1-based"),
        (X, Y + 1000, {}, "labels: label 1001 in row 1 with 40 samples"),
        (X, Y, {"num_classes": 1}, "labels: label 1 in row 1, but num_classes is 1"),
        (X, Y * 0, {}, "num_classes: only 1 class"),
        (X, Y * 0, {"num_classes": 3}, "labels: all samples have one label"),
        (X, Y, {"num_classes": 2.0}, "num_classes: not a whole number (2.0)"),
        (X, Y, {"seed": -1}, "seed: not a whole number of at least 0 (-1)"),
        (X, Y, {"true_labels": Y + 1}, "true_labels: label 2 in row 1, but num_classes is 2"),
    ],
)  # fmt: skip
def test_unusable_input_is_one_clear_line(embeddings: Any, labels: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        audit(embeddings, labels, **options)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


class Series:
    """A sequence that NumPy converts, as a Series of pandas."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.asarray(Y, dtype)


@pytest.mark.parametrize(
    ("embeddings", "labels", "options"),
    [
        (X, Series(), {}),
        (X, Y.astype(np.float32), {}),
        (X.tolist(), list(Y), {"num_classes": 6}),
        (np.concatenate([X, np.ones((40, 2), np.float32)], 1), Y, {}),
        (np.repeat(X[:10], 4, axis=0), Y, {}),
        (X, np.where(np.arange(40) == 5, 9, Y), {}),
        (X[:4], [0, 1, 0, 1], {}),
        (X.astype(">f4"), Y, {}),
        (X[::-1, ::-1], Y, {}),
        (X * np.float32(1e30), Y, {}),
        (X, Y + 1, {"num_classes": 3}),
        (X, Y.astype(bool), {}),
        (X, pd.Series(Y, dtype="Int64"), {}),
        (X, pd.Series(Y.tolist(), dtype=object), {}),
        (pd.DataFrame(X), pd.Series(Y, index=range(40, 80)), {}),
        (X, pd.Series(Y, dtype="category"), {}),
    ],
    ids=[
        "series",
        "float labels",
        "lists",
        "constant",
        "duplicates",
        "class of 1",
        "4 rows",
        "bytes",
        "views",
        "large",
        "class 0 is empty",
        "Booleans",
        "Int64",
        "objects",
        "DataFrame",
        "categories",
    ],
)
def test_unusual_but_valid_input_is_accepted(embeddings: Any, labels: Any, options: dict[str, Any]) -> None:
    result = audit_function(embeddings, labels, **options)
    assert np.isfinite(result.label_score).all() and np.isfinite(result.pred_probs).all()
    assert 0 <= result.noise_interval[0] <= result.noise_rate <= result.noise_interval[1] <= 1


def test_codes_of_a_categorical_are_the_classes() -> None:
    names = pd.Series(np.where(Y == 1, "dog", "cat"))
    for labels in (names.astype("category"), pd.Categorical(names), pd.CategoricalIndex(names)):
        result = audit(X, labels)
        plain = audit(X, Y)
        assert (result.given_label == Y).all() and (result.pred_probs == plain.pred_probs).all()
    unused = audit(X, pd.Categorical(names, categories=["bird", "cat", "dog", "emu"]))
    assert (unused.given_label == Y + 1).all() and unused.pred_probs.shape == (40, 4)
