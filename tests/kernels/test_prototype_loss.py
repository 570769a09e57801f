"""The prototype loss in plain PyTorch: by hand, against the formula in float64, at extremes, and what it refuses."""

import math

import pytest
import torch

from fastcpc.kernels import prototype_loss, prototype_scores
from fastcpc.kernels.reference import prototype_loss_reference, prototype_scores_reference


def batch(num_rows, num_classes, dim, seed=0, dtype=torch.float64, scale=1.0):
    """Embeddings, prototypes, labels, clean, pseudo-labels; about half clean, half of the rest in X_P."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = (torch.randn(num_rows, dim, generator=generator, dtype=torch.float64) * scale).to(dtype)
    prototypes = torch.randn(num_classes, dim, generator=generator, dtype=torch.float64).to(dtype)
    labels = torch.randint(0, num_classes, (num_rows,), generator=generator)
    clean = torch.rand(num_rows, generator=generator) < 0.5
    pseudo = torch.randint(0, num_classes, (num_rows,), generator=generator)
    pseudo = pseudo.masked_fill(clean | (torch.rand(num_rows, generator=generator) < 0.5), -1)
    return embeddings, prototypes, labels, clean, pseudo


def gradients(loss, embeddings, prototypes, *rest, upstream=1.0, **options):
    """Loss and both gradients."""
    embeddings, prototypes = embeddings.clone().requires_grad_(), prototypes.clone().requires_grad_()
    value = loss(embeddings, prototypes, *rest, **options)
    (value * upstream).backward()
    return value.detach(), embeddings.grad, prototypes.grad


def softplus(x):
    return math.log1p(math.exp(-abs(x))) + max(x, 0.0)


def test_by_hand():
    """Three samples, one of each set: logits (2, -1), (0.5, 1), (-3, 0); P's sample is in U too, as it must be."""
    embeddings, prototypes = torch.tensor([[2.0, -1.0], [0.5, 1.0], [-3.0, 0.0]]), torch.eye(2)
    labels, clean, pseudo = torch.tensor([0, 1, 0]), torch.tensor([True, False, False]), torch.tensor([-1, -1, 1])
    loss_x = softplus(-2.0) + 0.5 * softplus(-1.0)
    loss_u = (softplus(1.0) + softplus(-3.0)) / 2
    loss_p = softplus(0.0)
    args = (embeddings, prototypes, labels, clean, pseudo)
    assert float(prototype_loss(*args)) == pytest.approx(loss_x + loss_u + loss_p, rel=1e-6)
    assert float(prototype_loss(*args, alpha=0.25)) == pytest.approx(loss_x + loss_u + 0.25 * loss_p, rel=1e-6)
    assert float(prototype_loss(*args, alpha=0.0)) == pytest.approx(loss_x + loss_u, rel=1e-6)
    assert float(prototype_loss(*args[:4])) == pytest.approx(loss_x + loss_u, rel=1e-6)
    weighted = softplus(-2.0) + 3.0 * softplus(-1.0)
    assert float(prototype_loss(*args, neg_weight=3.0)) == pytest.approx(weighted + loss_u + loss_p, rel=1e-6)
    sizes = torch.tensor([4, 8, 2])
    shared = loss_x / 4 + 2 * loss_u / 8 + loss_p / 2
    assert float(prototype_loss(*args, set_sizes=sizes)) == pytest.approx(shared, rel=1e-6)


def test_gradient_by_hand():
    """One clean sample of logits (2, -1): dL/ds = (-sg(-2), neg_weight sg(-1)); prototypes are the identity."""
    embeddings, prototypes = torch.tensor([[2.0, -1.0]]), torch.eye(2)
    _, grad_v, grad_c = gradients(
        prototype_loss, embeddings, prototypes, torch.tensor([0]), torch.tensor([True]), neg_weight=0.5, upstream=3.0
    )
    grad_s = [-3.0 / (1 + math.exp(2.0)), 3.0 * 0.5 / (1 + math.exp(1.0))]
    torch.testing.assert_close(grad_v, torch.tensor([grad_s]))
    torch.testing.assert_close(grad_c, torch.tensor([[2 * g, -g] for g in grad_s]))


@pytest.mark.parametrize("num_rows", [1, 63, 128])
@pytest.mark.parametrize(("num_classes", "dim"), [(2, 3), (10, 17), (14, 128)])
def test_equals_reference(num_rows, num_classes, dim):
    args = batch(num_rows, num_classes, dim)
    for options in ({}, {"alpha": 0.0}, {"alpha": 2.5, "neg_weight": 0.7}):
        got, want = gradients(prototype_loss, *args, **options), gradients(prototype_loss_reference, *args, **options)
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


def test_gradcheck_of_both():
    embeddings, prototypes, *sets = batch(7, 4, 3)
    inputs = (embeddings.requires_grad_(), prototypes.requires_grad_())
    for loss in (prototype_loss, prototype_loss_reference):
        assert torch.autograd.gradcheck(lambda v, c, loss=loss: loss(v, c, *sets, alpha=0.3), inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision_input_is_summed_in_float32(dtype):
    embeddings, prototypes, *sets = batch(128, 50, 64, dtype=dtype)
    got = gradients(prototype_loss, embeddings, prototypes, *sets)
    want = gradients(prototype_loss_reference, embeddings.double(), prototypes.double(), *sets)
    assert got[0].dtype == torch.float32
    assert got[1].dtype == dtype
    assert got[2].dtype == dtype
    assert float(got[0]) == pytest.approx(float(want[0]), rel=2e-6)
    for grad, truth in zip(got[1:], want[1:], strict=True):
        torch.testing.assert_close(grad.double(), truth, rtol=torch.finfo(dtype).eps, atol=1e-7)


def test_autocast_does_not_reach_inside():
    args = batch(64, 10, 32, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = prototype_loss(*args)
    assert torch.equal(inside, prototype_loss(*args))


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exact_at_huge_logits(sign, dtype):
    """Logits of +-1e4 and one of 0.5 on the label: nothing overflows and nothing small is lost beside the huge ones."""
    embeddings = torch.tensor([[sign * 1e4, 0.5]], dtype=dtype)
    prototypes = torch.tensor([[0.0, 1.0], [1.0, 0.0], [-1.0, 0.0]], dtype=dtype)
    sets = (torch.tensor([0]), torch.tensor([True]))
    value, grad_v, grad_c = gradients(prototype_loss, embeddings, prototypes, *sets, neg_weight=1.0)
    assert float(value) == pytest.approx(1e4 + softplus(-0.5), rel=1e-7)
    small, _, _ = gradients(prototype_loss, embeddings, prototypes[:1].expand(3, 2) * 1.0, *sets, neg_weight=0.0)
    assert float(small) == pytest.approx(softplus(-0.5), rel=1e-6)
    torch.testing.assert_close(grad_v, torch.tensor([[sign, -1 / (1 + math.exp(0.5))]], dtype=dtype))
    assert torch.isfinite(grad_c).all()
    value, grad_v, _ = gradients(prototype_loss, embeddings, prototypes, torch.tensor([1]), torch.tensor([False]))
    assert float(value) == pytest.approx(1e4 if sign > 0 else 0.0, abs=1e-30)  # U: -log(1 - sg(+-1e4))
    torch.testing.assert_close(grad_v, torch.tensor([[1.0 if sign > 0 else 0.0, 0.0]], dtype=dtype))


def test_label_column_is_left_out_exactly():
    """The label's own huge logit must not pass through the sum over the negatives: 1e4 - 1e4 would lose ln 2."""
    embeddings, prototypes = torch.tensor([[1e4, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    value = prototype_loss(embeddings, prototypes, torch.tensor([0]), torch.tensor([True]), neg_weight=1.0)
    assert float(value) == pytest.approx(math.log(2.0), rel=1e-7)


@pytest.mark.parametrize("all_clean", [True, False])
def test_empty_sets_contribute_nothing(all_clean):
    embeddings, prototypes, labels, _, _ = batch(9, 5, 4)
    clean, nobody = torch.full((9,), all_clean), torch.full((9,), -1)
    got = gradients(prototype_loss, embeddings, prototypes, labels, clean, nobody)
    want = gradients(prototype_loss_reference, embeddings, prototypes, labels, clean)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-14)
    assert torch.equal(got[0], prototype_loss(embeddings, prototypes, labels, clean))
    none = gradients(
        prototype_loss, embeddings, prototypes, labels, clean, nobody, set_sizes=torch.tensor([9, 9, 0]), alpha=4.0
    )
    assert all(torch.isfinite(part).all() for part in none)


def test_shares_of_a_spread_batch_sum_to_the_whole():
    args = batch(50, 6, 8)
    whole = gradients(prototype_loss, *args, alpha=0.5)
    sizes = torch.stack([args[3].sum(), (~args[3]).sum(), (args[4] >= 0).sum()])
    shares = []
    for rows in (slice(0, 7), slice(7, 50)):
        own = args[0][rows], args[1], *(part[rows] for part in args[2:])
        shares.append(gradients(prototype_loss, *own, alpha=0.5, set_sizes=sizes))
    torch.testing.assert_close(shares[0][0] + shares[1][0], whole[0])
    torch.testing.assert_close(torch.cat([shares[0][1], shares[1][1]]), whole[1])
    torch.testing.assert_close(shares[0][2] + shares[1][2], whole[2])


def test_loss_scale_lifts_small_float16_gradients():
    """Gradients of 1e-9 are no float16 numbers, those of a loss scaled by 2^20 are: rounding comes after the scale."""
    embeddings, prototypes = torch.full((1, 1), -20.0, dtype=torch.float16), torch.ones(2, 1, dtype=torch.float16)
    args = (embeddings, prototypes, torch.tensor([0]), torch.tensor([False]))
    _, grad_v, _ = gradients(prototype_loss, *args, upstream=2.0**20)
    assert float(grad_v) == pytest.approx(2.0**20 * math.exp(-20.0), rel=1e-3)


def test_non_contiguous_input():
    embeddings, prototypes, labels, clean, pseudo = batch(33, 7, 12)
    views = (embeddings.T.contiguous().T, prototypes.repeat(1, 2)[:, :12], labels.repeat(2)[:33])
    got = gradients(prototype_loss, *views, clean, pseudo)
    torch.testing.assert_close(got, gradients(prototype_loss, embeddings, prototypes, labels, clean, pseudo))


def test_memory_holds_no_one_hot():
    """Nothing integer or boolean of B x K elements is formed."""
    formed = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and not out.is_floating_point():
                formed.append(out.numel())
            return out

    args = batch(40, 30, 4, dtype=torch.float32)
    with Watch():
        prototype_loss(*args)
    assert formed
    assert max(formed) <= 40


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_scores(dtype):
    embeddings, prototypes, labels, _, _ = batch(100, 9, 31, dtype=dtype)
    scores = prototype_scores(embeddings.requires_grad_(), prototypes, labels)
    truth = prototype_scores_reference(embeddings.detach().double(), prototypes.double(), labels)
    assert scores.shape == (100,)
    assert not scores.requires_grad
    assert scores.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(scores.double(), truth, rtol=0, atol=1e-6 if scores.dtype == torch.float32 else 1e-15)


def test_scores_of_a_whole_data_set(monkeypatch):
    """More rows than one gather takes, a short last one, no rows at all."""
    monkeypatch.setattr("fastcpc.kernels.prototype_torch.SCORE_ROWS", 16)
    embeddings, prototypes, labels, _, _ = batch(53, 4, 6)
    torch.testing.assert_close(
        prototype_scores(embeddings, prototypes, labels), prototype_scores_reference(embeddings, prototypes, labels)
    )
    assert prototype_scores(embeddings[:0], prototypes, labels[:0]).shape == (0,)
    assert prototype_scores(torch.tensor([[1e4], [-1e4]]), torch.ones(2, 1), torch.tensor([0, 1])).tolist() == [
        1.0,
        0.0,
    ]


def arguments():
    names = ("embeddings", "prototypes", "labels", "clean", "pseudo_labels")
    return dict(zip(names, batch(6, 3, 4, dtype=torch.float32), strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"embeddings": torch.ones(6)},
            r"embeddings: expected a floating tensor of two dimensions, got torch.float32 \(6,\)",
        ),
        ({"embeddings": torch.ones(6, 4, dtype=torch.int64)}, "embeddings: expected a floating tensor"),
        ({"embeddings": torch.ones(0, 4)}, r"labels: expected torch.int64 \(0,\)"),
        (
            {"prototypes": torch.ones(3, 5)},
            r"prototypes: expected rows as long .* \(6, 4\), got torch.float32 \(3, 5\)",
        ),
        ({"prototypes": torch.ones(1, 4)}, "prototypes: expected 2 rows"),
        ({"prototypes": torch.ones(3, 4, device="meta")}, "prototypes: expected them on cpu as embeddings, got meta"),
        ({"labels": torch.zeros(5, dtype=torch.int64)}, r"labels: expected torch.int64 \(6,\).*got torch.int64 \(5,\)"),
        ({"labels": torch.zeros(6)}, "labels: expected torch.int64"),
        ({"labels": torch.zeros(6, dtype=torch.bool)}, r"labels: expected torch.int64 .*got torch.bool"),
        ({"labels": torch.tensor([0, 1, 2, 3, 0, -1])}, r"labels: expected values in \[0, 2\], got 3 at position 3"),
        ({"labels": torch.tensor([0, -1, 0, 3, 0, 0])}, r"labels: expected values in \[0, 2\], got -1 at position 1"),
        ({"clean": torch.zeros(6)}, r"clean: expected torch.bool \(6,\).*got torch.float32"),
        ({"clean": torch.zeros(6, dtype=torch.bool, device="meta")}, "clean: expected it on cpu"),
        ({"pseudo_labels": torch.full((6,), -2)}, r"pseudo_labels: expected values in \[-1, 2\], got -2 at position 0"),
        ({"pseudo_labels": torch.full((6,), 3)}, "pseudo_labels: expected values in"),
        ({"alpha": -0.5}, "alpha: expected a finite number, 0 or more, got -0.5"),
        ({"neg_weight": math.nan}, "neg_weight: expected a finite number"),
        ({"set_sizes": torch.ones(2)}, r"set_sizes: expected \(3,\) on cpu"),
        ({"backend": "cuda"}, "backend: expected"),
    ],
)
def test_bad_input_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        prototype_loss(**arguments() | change)


def test_empty_batch_is_refused():
    empty = {name: value[:0] for name, value in arguments().items() if name != "prototypes"}
    with pytest.raises(ValueError, match="embeddings: expected 1 row or more, got 0"):
        prototype_loss(**arguments() | empty)


def test_scores_refuse_bad_labels():
    with pytest.raises(ValueError, match=r"labels: expected values in \[0, 1\], got 2 at position 1"):
        prototype_scores(torch.ones(2, 3), torch.ones(2, 3), torch.tensor([0, 2]))
