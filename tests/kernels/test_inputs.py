"""What people pass to the public functions: NumPy scalars, lists, pandas columns, memory maps, any layout."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fastcpc.kernels import fit_gmm, order_groups, prototype_loss, prototype_scores

RNG = np.random.default_rng(0)
GROUPS = np.arange(60) % 3
VALUES = np.where(np.arange(60) % 2, 0.8, 0.1) + 0.05 * RNG.random(60)
FIT = fit_gmm(VALUES, GROUPS, 3)


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


def memory_map(array: np.ndarray, folder: Path) -> np.ndarray:
    np.save(folder / "array.npy", array)
    return np.load(folder / "array.npy", mmap_mode="r")


SAME_VALUES = {
    "list": lambda _: VALUES.tolist(),
    "tuple": lambda _: tuple(VALUES.tolist()),
    "Series": lambda _: pd.Series(VALUES, index=np.arange(60)[::-1]),
    "nullable Series": lambda _: pd.Series(VALUES, dtype="Float64"),
    "objects": lambda _: VALUES.astype(object),
    "read-only": lambda _: read_only(VALUES),
    "memory map": lambda folder: memory_map(VALUES, folder),
    "reversed view": lambda _: VALUES[::-1].copy()[::-1],
    "column of a Fortran array": lambda _: np.asfortranarray(np.stack([VALUES, VALUES], 1))[:, 1],
    "other byte order": lambda _: VALUES.astype(">f8"),
    "long double": lambda _: VALUES.astype(np.longdouble),
}
SAME_GROUPS = {
    "list": GROUPS.tolist(),
    "Series": pd.Series(GROUPS),
    "nullable Series": pd.Series(GROUPS, dtype="Int64"),
    "Index": pd.Index(GROUPS),
    "categorical Series": pd.Series(pd.Categorical.from_codes(GROUPS, ["cat", "dog", "bird"])),
    "Categorical": pd.Categorical.from_codes(GROUPS, ["cat", "dog", "bird"]),
    "read-only": read_only(GROUPS),
    "int32 of another byte order": GROUPS.astype(">i4"),
}


@pytest.mark.parametrize("name", SAME_VALUES)
def test_values_of_any_form_give_the_same_fit(name: str, tmp_path: Path) -> None:
    values = SAME_VALUES[name](tmp_path)
    fit = fit_gmm(values, GROUPS, 3)
    assert type(fit.means) is np.ndarray
    np.testing.assert_array_equal(fit.means, FIT.means)
    q = fit.clean_probability(values, GROUPS)
    assert type(q) is np.ndarray
    np.testing.assert_array_equal(q, FIT.clean_probability(VALUES, GROUPS))


@pytest.mark.parametrize("name", SAME_GROUPS)
def test_groups_of_any_form_give_the_same_fit(name: str) -> None:
    groups = SAME_GROUPS[name]
    for beside in (VALUES, VALUES.tolist()):
        np.testing.assert_array_equal(fit_gmm(beside, groups, 3).means, FIT.means)
    np.testing.assert_array_equal(fit_gmm(VALUES, order_groups(groups, 3)).means, FIT.means)
    np.testing.assert_array_equal(FIT.clean_probability(VALUES, groups), FIT.clean_probability(VALUES, GROUPS))


@pytest.mark.parametrize("integer", [np.int64, np.uint8, torch.tensor])
def test_integers_and_numbers_of_numpy_and_torch(integer) -> None:
    fit = fit_gmm(VALUES, GROUPS, integer(3), max_iter=integer(10), tol=np.float32(1e-2), reg_covar=np.float64(5e-4))
    np.testing.assert_allclose(fit.means, FIT.means)
    order = order_groups(GROUPS, GROUPS.max() + 1)
    np.testing.assert_array_equal(fit_gmm(VALUES, order, GROUPS.max() + 1).means, FIT.means)
    init = [part.tolist() for part in (FIT.means, FIT.variances, FIT.weights)]
    assert fit_gmm(VALUES, GROUPS, 3, init=init).fitted.all()


def test_tensors_give_tensors_and_take_lists_beside_them() -> None:
    values = torch.from_numpy(VALUES)
    for groups in (torch.from_numpy(GROUPS), GROUPS.tolist(), pd.Series(GROUPS)):
        fit = fit_gmm(values, groups, 3)
        assert isinstance(fit.means, torch.Tensor)
        np.testing.assert_array_equal(fit.means.numpy(), FIT.means)
        assert isinstance(fit.clean_probability(values, groups), torch.Tensor)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_short_floats_are_summed_in_float64(dtype) -> None:
    short = VALUES.astype(dtype)
    np.testing.assert_array_equal(fit_gmm(short, GROUPS, 3).means, fit_gmm(short.astype(np.float64), GROUPS, 3).means)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": pd.Categorical(["a", None, "b"] * 20)}, "groups: 20 of 60 have no category .* first at position 1"),
        ({"groups": pd.Series(pd.Categorical(["a", None] * 30))}, "groups: 30 of 60 have no category"),
        ({"groups": ["cat"] * 60}, r"groups: expected integer \(N,\)"),
        ({"groups": [0, None] * 30}, "groups: expected numbers, got None at position 1"),
        ({"groups": pd.Series([0, None] * 30, dtype="Int64")}, "groups: "),
        ({"groups": GROUPS == 1}, r"groups: expected integer \(N,\), got bool"),
        ({"groups": 3}, "groups: expected an array, a list or a Series, got builtins.int"),
        ({"values": [[0.1], [0.2, 0.3]]}, "values: cannot be converted to an array"),
        ({"values": np.ma.masked_less(VALUES, 0.5)}, "values: has masked values"),
        ({"values": pd.Series([0.5, None] * 30, dtype="Float64")}, "values: "),
        ({"values": "losses.npy"}, "values: expected an array, a list or a Series, got builtins.str"),
        ({"num_groups": 3.0}, "num_groups: expected an integer, 1 or more, got 3.0"),
        ({"num_groups": "3"}, "num_groups: expected an integer"),
        ({"tol": "small"}, "tol: expected a finite number, 0 or more, got 'small'"),
    ],
)
def test_ambiguous_input_is_refused_by_name(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        fit_gmm(**{"values": VALUES, "groups": GROUPS, "num_groups": 3} | change)


EMBEDDINGS, PROTOTYPES = RNG.normal(size=(6, 4)), RNG.normal(size=(3, 4))
LABELS, CLEAN, PSEUDO = np.array([0, 1, 2, 0, 1, 2]), np.arange(6) % 2 == 0, np.array([-1, 0, -1, 1, -1, 2])
TENSORS = [torch.from_numpy(part) for part in (EMBEDDINGS, PROTOTYPES, LABELS, CLEAN, PSEUDO)]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "change",
    [
        lambda array, _: array,
        lambda array, _: array.tolist(),
        lambda array, _: read_only(array),
        lambda array, folder: memory_map(array, folder),
        lambda array, _: np.asfortranarray(array),
        lambda array, _: np.repeat(array, 2, axis=0)[::2],
        lambda array, _: array[::-1].copy()[::-1],
        lambda array, _: array.astype(array.dtype.newbyteorder(">")),
    ],
)
def test_prototype_functions_take_any_form_and_return_numpy(change, tmp_path: Path) -> None:
    parts = []
    for i, array in enumerate((EMBEDDINGS, PROTOTYPES, LABELS, CLEAN, PSEUDO)):
        folder = tmp_path / str(i)
        folder.mkdir()
        parts.append(change(array, folder))
    loss = prototype_loss(*parts, alpha=np.float32(1), set_sizes=[3, 3, 3])
    assert isinstance(loss, np.float64) and loss == float(prototype_loss(*TENSORS, set_sizes=torch.tensor([3, 3, 3])))
    scores = prototype_scores(*parts[:3])
    assert type(scores) is np.ndarray
    np.testing.assert_array_equal(scores, prototype_scores(*TENSORS[:3]).numpy())


def test_prototype_functions_take_series_and_short_types_beside_tensors() -> None:
    embeddings = TENSORS[0].clone().requires_grad_()
    labels = pd.Series(pd.Categorical.from_codes(LABELS, ["a", "b", "c"]))
    loss = prototype_loss(embeddings, PROTOTYPES, labels, CLEAN.tolist(), pd.Series(PSEUDO))
    assert torch.equal(loss, prototype_loss(*TENSORS))
    loss.backward()
    assert embeddings.grad is not None
    for dtype in (torch.int32, torch.uint8):
        assert torch.equal(prototype_scores(*TENSORS[:2], TENSORS[2].to(dtype)), prototype_scores(*TENSORS[:3]))
    half = prototype_scores(EMBEDDINGS.astype(np.float16), PROTOTYPES.astype(np.float16), LABELS.astype(np.uint16))
    assert half.dtype == np.float32
    with pytest.raises(ValueError, match="labels: 2 of 6 have no category"):
        prototype_scores(EMBEDDINGS, PROTOTYPES, pd.Categorical(["a", None, "b"] * 2))
    with pytest.raises(ValueError, match="alpha: expected a finite number"):
        prototype_loss(*TENSORS, alpha="1.0x")
