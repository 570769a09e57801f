"""The Triton prototype loss against float64, on a GPU or, with TRITON_INTERPRET=1, by Triton's interpreter on a CPU.

Not collected by itself: ``test_prototype_triton.py`` runs this file in a process of its own, because the interpreter
must be chosen before the kernels are imported. A result is judged by the error that plain PyTorch makes in the same
dtype: err(kernel) <= 2 err(torch) + floor. The floor is what rounding the true result to its dtype may cost.
"""

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import logsigmoid

from fastcpc.kernels import prototype_loss, prototype_scores, prototype_triton
from fastcpc.kernels.prototype_torch import PrototypeLossTorch, prototype_scores_torch
from fastcpc.kernels.prototype_triton_kernels import INTERPRETED

DEVICE = "cpu" if INTERPRETED else "cuda"
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(autouse=True)
def _plain_pytorch_may_be_itself():
    """Deterministic algorithms fill fresh memory with NaN, which shows unwritten results, but may slow the peer."""
    torch.use_deterministic_algorithms(INTERPRETED)


def batch(num_rows, num_classes, dim, dtype, seed=0, scale=1.0):
    """Embeddings, prototypes, labels, clean, pseudo-labels: half clean, half of the others in X_P."""
    random = torch.Generator().manual_seed(seed)
    embeddings = (torch.randn(num_rows, dim, generator=random) * scale).to(dtype)
    prototypes = torch.randn(num_classes, dim, generator=random).to(dtype)
    labels = torch.randint(0, num_classes, (num_rows,), generator=random)
    clean = torch.rand(num_rows, generator=random) < 0.5
    pseudo = torch.randint(0, num_classes, (num_rows,), generator=random)
    pseudo = pseudo.masked_fill(clean | (torch.rand(num_rows, generator=random) < 0.5), -1)
    return [tensor.to(DEVICE) for tensor in (embeddings, prototypes, labels, clean, pseudo)]


def plain(embeddings, prototypes, labels, clean, pseudo, alpha, neg_weight, set_sizes):
    """Eqs. 2-5 as one writes them in PyTorch: logits in the input's dtype, the rest in float32."""
    logits = (embeddings @ prototypes.T).float()
    own = torch.nn.functional.one_hot(labels, len(prototypes)).bool()
    given = logits[own]
    sums = [
        (logsigmoid(given) + neg_weight * logsigmoid(-logits).masked_fill(own, 0.0).sum(1))[clean].sum(),
        logsigmoid(-given)[~clean].sum(),
        alpha * logsigmoid(logits.gather(1, pseudo.clamp(min=0)[:, None])[:, 0])[pseudo >= 0].sum(),
    ]
    sizes = torch.stack([clean.sum(), (~clean).sum(), (pseudo >= 0).sum()]) if set_sizes is None else set_sizes
    return -(torch.stack(sums) / sizes.clamp(min=1)).sum()


def differentiate(loss, embeddings, prototypes, *rest, upstream):
    """Loss, gradient of embeddings, gradient of prototypes."""
    embeddings, prototypes = embeddings.detach().requires_grad_(), prototypes.detach().requires_grad_()
    value = loss(embeddings, prototypes, *rest)
    (value * upstream).backward()
    return value.detach(), embeddings.grad, prototypes.grad


def judge(data, *, alpha=0.7, neg_weight=None, set_sizes=None, upstream=1.0):
    """Holds loss and gradients against float64, next to what plain PyTorch makes of the same input."""
    embeddings, prototypes, labels, clean, pseudo = data
    neg_weight = 1.0 / len(prototypes) if neg_weight is None else neg_weight
    options = (alpha, neg_weight, set_sizes)
    sets = (labels, clean, pseudo)

    def kernel(v, c, *sets):
        return prototype_loss(v, c, *sets, alpha=alpha, neg_weight=neg_weight, set_sizes=set_sizes, backend="triton")

    truth = differentiate(
        PrototypeLossTorch.apply, embeddings.double(), prototypes.double(), *sets, *options, upstream=upstream
    )
    ours = differentiate(kernel, embeddings, prototypes, *sets, upstream=upstream)
    theirs = differentiate(plain, embeddings, prototypes, *sets, *options, upstream=upstream)
    for name, own, other, true in zip(("loss", "grad_v", "grad_c"), ours, theirs, truth, strict=True):
        size = float(true.abs().max())
        eps = torch.finfo(own.dtype).eps
        floor = (
            size * (0.5 * eps + 4.0 * torch.finfo(torch.float32).eps)
            + 0.5 * torch.finfo(own.dtype).smallest_normal * eps
        )
        error, error_plain = (own.double() - true).abs(), float((other.double() - true).abs().max())
        worst = int(error.argmax())
        assert float(error.max()) <= 2.0 * error_plain + floor, (
            f"{name}: element {worst} is {own.flatten()[worst]}, truth {true.flatten()[worst]}, "
            f"error {error.max():.3g}, plain {error_plain:.3g}, floor {floor:.3g}"
        )
    assert ours[0].dtype == torch.float32
    assert ours[1].dtype == embeddings.dtype
    assert ours[2].dtype == prototypes.dtype


def grid():
    """Rows, classes, columns, dtype. The interpreter leaves out what takes it long: many rows of many small tiles."""
    for dtype, num_rows in product(DTYPES, (1, 63, 128, 513)):
        for num_classes, dim in ((2, 3), (10, 128), (14, 64), (50, 32), (100, 100)):
            small_tiles = dtype == torch.float32 and num_rows * num_classes * dim > 100_000
            if not INTERPRETED or not (small_tiles or (num_rows == 513 and num_classes != 10)):
                yield num_rows, num_classes, dim, dtype


@pytest.mark.parametrize(("num_rows", "num_classes", "dim", "dtype"), list(grid()))
def test_grid(num_rows, num_classes, dim, dtype):
    judge(batch(num_rows, num_classes, dim, dtype), upstream=1.7)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("num_rows", "num_classes", "dim"), [(130, 150, 128), (40, 300, 16), (65, 20, 130), (17, 12, 512)]
)
def test_many_classes_and_long_rows(dtype, num_rows, num_classes, dim):
    """More classes than KEEP_CLASSES, rows of several chunks."""
    if INTERPRETED and dtype == torch.float32:
        num_rows = min(num_rows, 33)
    judge(batch(num_rows, num_classes, dim, dtype, seed=1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_classes", [5, 140])
@pytest.mark.parametrize("sets", ["all clean", "none clean", "no pseudo", "all pseudo", "one clean"])
def test_sets(dtype, num_classes, sets):
    embeddings, prototypes, labels, clean, pseudo = batch(40, num_classes, 32, dtype, seed=2)
    if sets == "all clean":
        clean, pseudo = torch.ones_like(clean), torch.full_like(pseudo, -1)
    elif sets == "none clean":
        clean = torch.zeros_like(clean)
    elif sets == "no pseudo":
        pseudo = torch.full_like(pseudo, -1)
    elif sets == "all pseudo":  # also on clean samples, and equal to the label: terms add up in one column
        pseudo = labels.clone()
    else:
        clean = torch.arange(40, device=DEVICE) == 11
    judge([embeddings, prototypes, labels, clean, pseudo])


@pytest.mark.parametrize("options", [
    {"alpha": 0.0}, {"neg_weight": 0.0}, {"neg_weight": 3.0, "alpha": 5.0}, {"upstream": -2.0**-6}, {"upstream": 0.0},
    {"set_sizes": torch.tensor([40, 300, 1000])}, {"set_sizes": torch.tensor([64.0, 30.0, 0.0])},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("num_classes", [9, 130])
def test_options(num_classes, options):
    if "set_sizes" in options:
        options = options | {"set_sizes": options["set_sizes"].to(DEVICE)}
    data = batch(64, num_classes, 48, torch.float16, seed=3)
    if "set_sizes" in options and not float(options["set_sizes"][2]):
        data[4] = torch.full_like(data[4], -1)
    judge(data, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_classes", [4, 131])
def test_huge_logits(dtype, num_classes):
    """Logits of some +-1e4: one-hot prototypes, so that they are exact in every dtype."""
    embeddings, prototypes, *sets = batch(50, num_classes, 16, dtype, seed=4)
    embeddings = torch.sign(embeddings) * torch.where(embeddings.abs() > 0.5, 10_240.0, 0.25).to(dtype)
    prototypes = torch.nn.functional.one_hot(torch.arange(num_classes, device=DEVICE) % 16, 16).to(dtype)
    judge([embeddings, prototypes, *sets])


def test_confident_negatives_keep_their_digits():
    """softplus(-12) is 6e-6: log(1 + e) by adding 1 first would lose all but 1 % of it.

    A GPU computes exp(-12) as 2 to a rounded product, with a relative error of up to 9e-7.
    """
    embeddings, prototypes = torch.tensor([[1.0, -12.0]], device=DEVICE), torch.eye(2, device=DEVICE)
    sets = (torch.tensor([0], device=DEVICE), torch.tensor([True], device=DEVICE))
    only_negatives = prototype_loss(embeddings, prototypes, *sets, neg_weight=1.0, backend="triton")
    only_negatives = only_negatives - math.log1p(math.exp(-1.0))
    embeddings[0, 0] = 80.0
    alone = prototype_loss(embeddings, prototypes, *sets, neg_weight=1.0, backend="triton")
    assert float(alone) == pytest.approx(math.log1p(math.exp(-12.0)), rel=2e-6)
    assert float(only_negatives) == pytest.approx(math.log1p(math.exp(-12.0)), abs=2e-7)


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_layout(dtype):
    """Transposed, sliced, offset by one element, every second label: copied or read in place, the same result."""
    embeddings, prototypes, labels, clean, pseudo = batch(37, 6, 24, dtype, seed=5)
    plain_layout = differentiate(
        lambda v, c: prototype_loss(v, c, labels, clean, pseudo, backend="triton"), embeddings, prototypes, upstream=1.0
    )
    shifted = torch.empty(38 * 24 + 1, dtype=dtype, device=DEVICE)[1 : 1 + 37 * 24].view(37, 24).copy_(embeddings)
    layouts = [
        (embeddings.T.contiguous().T, prototypes.repeat(1, 2)[:, :24], labels.repeat_interleave(2)[::2], clean, pseudo),
        (
            shifted,
            prototypes.flip(0).flip(0),
            labels,
            clean.repeat_interleave(3)[::3],
            pseudo.repeat_interleave(2)[1::2],
        ),
    ]
    for v, c, *sets in layouts:
        got = differentiate(lambda v, c, sets=sets: prototype_loss(v, c, *sets, backend="triton"), v, c, upstream=1.0)
        for a, b in zip(got, plain_layout, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_mixed_dtypes():
    embeddings, prototypes, *sets = batch(40, 7, 32, torch.bfloat16, seed=6)
    mixed = differentiate(
        lambda v, c: prototype_loss(v, c, *sets, backend="triton"), embeddings, prototypes.float(), upstream=1.0
    )
    single = differentiate(
        lambda v, c: prototype_loss(v, c, *sets, backend="triton"), embeddings.float(), prototypes.float(), upstream=1.0
    )
    assert [part.dtype for part in mixed] == [torch.float32, torch.bfloat16, torch.float32]
    torch.testing.assert_close(mixed[2], single[2], rtol=0, atol=0)
    torch.testing.assert_close(mixed[1], single[1].bfloat16(), rtol=0, atol=0)


@pytest.mark.parametrize("num_classes", [10, 150])
@pytest.mark.parametrize("wanted", [(True, False), (False, True), (False, False)])
def test_only_requested_gradients_are_computed(num_classes, wanted):
    embeddings, prototypes, *sets = batch(64, num_classes, 32, torch.float16, seed=7)
    both = differentiate(
        lambda v, c: prototype_loss(v, c, *sets, backend="triton"), embeddings, prototypes, upstream=1.0
    )
    inputs = [
        tensor.detach().requires_grad_(flag) for tensor, flag in zip((embeddings, prototypes), wanted, strict=True)
    ]
    value = prototype_loss(*inputs, *sets, backend="triton")
    torch.testing.assert_close(value.detach(), both[0])
    if not any(wanted):
        assert not value.requires_grad
        return
    value.backward()
    for tensor, flag, grad in zip(inputs, wanted, both[1:], strict=True):
        assert (tensor.grad is not None) == flag
        if flag:
            torch.testing.assert_close(tensor.grad, grad, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("programs", [1, 3, 264])
def test_runs_of_rows_and_tickets(monkeypatch, programs):
    """Few and many partial sums give the same gradient up to rounding; tickets are zero again after every launch."""
    tickets = torch.zeros(1024, dtype=torch.int32, device=DEVICE)
    monkeypatch.setattr(prototype_triton, "tickets_for", lambda device, count: tickets)
    monkeypatch.setattr(prototype_triton, "PROGRAMS", programs)
    judge(batch(260, 70, 32, torch.float16, seed=8))
    assert not tickets.any()


def test_results_are_bit_identical():
    data = batch(200, 40, 64, torch.bfloat16, seed=9)
    results = [
        differentiate(lambda v, c: prototype_loss(v, c, *data[2:], backend="triton"), *data[:2], upstream=1.0)
        for _ in range(2)
    ]
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize(("label", "pseudo_label"), [(7, -1), (-1, -1), (0, 7), (0, -2)])
def test_label_out_of_range_turns_all_into_nan(label, pseudo_label):
    """Labels on a GPU are not looked at beforehand; nothing out of bounds is read, nothing wrong passes for right."""
    embeddings, prototypes, labels, clean, pseudo = batch(20, 7, 16, torch.float32, seed=10)
    labels[3], pseudo[3] = label, pseudo_label
    value, grad_v, grad_c = differentiate(
        prototype_triton.PrototypeLossTriton.apply,
        embeddings,
        prototypes,
        labels,
        clean,
        pseudo,
        1.0,
        0.2,
        None,
        upstream=1.0,
    )
    assert value.isnan()
    assert grad_v.isnan().all()
    assert grad_c.isnan().all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("num_rows", "dim"), [(0, 8), (1, 3), (33, 64), (300, 128), (70, 500)])
def test_scores(dtype, num_rows, dim):
    embeddings, prototypes, labels, *_ = batch(num_rows, 11, dim, dtype, seed=11, scale=0.3)
    got = prototype_triton.prototype_scores_triton(embeddings, prototypes, labels)
    assert got.dtype == torch.float32
    truth = prototype_scores_torch(embeddings.double(), prototypes.double(), labels)
    torch.testing.assert_close(got.double(), truth, rtol=0, atol=1e-6)


def test_scores_of_bad_labels_are_nan():
    embeddings, prototypes, *_ = batch(3, 4, 8, torch.float32)
    labels = torch.tensor([1, 4, -1], device=DEVICE)
    got = prototype_triton.prototype_scores_triton(embeddings, prototypes, labels)
    assert got.isnan().tolist() == [False, True, True]


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    num_rows=st.integers(1, 140),
    num_classes=st.integers(2, 140),
    dim=st.integers(1, 140),
    dtype=st.sampled_from(DTYPES[1:]),
    scale=st.sampled_from([1e-3, 0.1, 1.0, 10.0]),
    alpha=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 10_000),
)
def test_random_cases(num_rows, num_classes, dim, dtype, scale, alpha, seed):
    judge(batch(num_rows, num_classes, dim, dtype, seed=seed, scale=scale), alpha=alpha)


def test_public_scores_pick_triton_on_a_gpu():
    if INTERPRETED:
        assert prototype_scores(torch.ones(1, 4), torch.ones(2, 4), torch.tensor([0])).device.type == "cpu"
        return
    embeddings, prototypes, labels, *_ = batch(50, 5, 32, torch.bfloat16)
    expected = prototype_triton.prototype_scores_triton(embeddings, prototypes, labels)
    assert torch.equal(prototype_scores(embeddings, prototypes, labels), expected)
