"""The sigmoid-prototype loss of CPC (eqs. 2-5) and the clean probability it teaches.

    s_ik = v_i . c_k
    L_X  = -1/|X| sum_{i in X} [log sg(s_{i,y_i}) + neg_weight sum_{k != y_i} log(1 - sg(s_ik))]
    L_U  = -1/|U| sum_{i in U} log(1 - sg(s_{i,y_i}))
    L_P  = -1/|P| sum_{i in P} log sg(s_{i,k_i})
    L_C  = L_X + L_U + alpha L_P

An empty set contributes 0.
"""

import logging
from functools import cache
from typing import Literal, get_args

import torch
from torch import Tensor

from .inputs import Array, as_number, as_tensor
from .prototype_checks import Backend, as_ids, check_embeddings, check_range, check_rows
from .prototype_torch import PrototypeLossTorch, prototype_scores_torch

try:
    from . import prototype_triton as triton
except ModuleNotFoundError as missing:  # PyTorch brings Triton on Linux only
    if missing.name != "triton":
        raise
    triton = None  # type: ignore[assignment]

logger = logging.getLogger("fastcpc")


def prototype_loss(
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    clean: Array,
    pseudo_labels: Array | None = None,
    *,
    alpha: float = 1.0,
    neg_weight: float | None = None,
    backend: Backend = "auto",
    set_sizes: Array | None = None,
) -> Array:
    """L_C of eqs. 2-5 (CPC, arXiv version) for one batch, differentiable in embeddings and prototypes.

    embeddings: (B, d) floating, B >= 1. prototypes: (K, d) floating, K >= 2. labels: (B,) int64 in [0, K), the given
    labels. clean: (B,) bool, True for the samples of X_GMM, False for those of U_GMM. pseudo_labels: (B,) int64, k_i
    in [0, K) for the samples of X_P and -1 elsewhere; None: no sample is in X_P. alpha: weight of L_P, 0 or more.
    neg_weight: weight of the negatives in L_X, 0 or more; None means 1/K. backend: "auto" takes Triton for CUDA
    tensors, plain PyTorch elsewhere, and logs once if Triton cannot take CUDA tensors. set_sizes: (3,) numeric tensor
    on the same device, |X|, |U| and |P| to divide by instead of this batch's own counts. It is for a batch that is
    spread over several processes; each of them then returns its share of the sum.

    Arguments are torch tensors, NumPy arrays, lists or Series. labels and pseudo_labels may have any integer dtype,
    bool apart, and a categorical Series stands for its codes. Without a tensor among embeddings and prototypes the
    result is NumPy's.

    Returns a scalar: float32, or float64 where embeddings or prototypes are float64. Sums are kept in that dtype.
    ValueError: a wrong shape, dtype or device, a backend that cannot run here, a label out of range. Labels are checked
    on a CPU only, see ``prototype_checks.check_embeddings``.

    >>> prototypes = torch.eye(3)
    >>> embeddings = torch.tensor([[4.0, -4.0, -4.0], [-4.0, 4.0, -4.0]])
    >>> clean = torch.tensor([True, True])
    >>> round(float(prototype_loss(embeddings, prototypes, torch.tensor([0, 1]), clean)), 3)  # right labels
    0.03
    >>> round(float(prototype_loss(embeddings, prototypes, torch.tensor([1, 0]), clean)), 3)  # wrong labels
    5.364
    """
    is_tensor = isinstance(embeddings, Tensor) or isinstance(prototypes, Tensor)
    embeddings, prototypes, labels = _tensors(embeddings, prototypes, labels)
    check_embeddings(embeddings, prototypes, labels)
    if embeddings.shape[0] == 0:
        raise ValueError("embeddings: expected 1 row or more, got 0")
    clean = as_tensor("clean", clean, embeddings.device)
    check_rows("clean", clean, torch.bool, embeddings)
    if pseudo_labels is not None:
        pseudo_labels = as_ids("pseudo_labels", pseudo_labels, embeddings.device)
        check_rows("pseudo_labels", pseudo_labels, torch.int64, embeddings)
        check_range("pseudo_labels", pseudo_labels, -1, prototypes.shape[0])
    if set_sizes is not None:
        set_sizes = as_tensor("set_sizes", set_sizes, embeddings.device)
    if set_sizes is not None and (set_sizes.shape != (3,) or set_sizes.device != embeddings.device):
        raise ValueError(
            f"set_sizes: expected (3,) on {embeddings.device}, got {tuple(set_sizes.shape)} on {set_sizes.device}"
        )
    alpha = as_number("alpha", alpha)
    neg_weight = 1.0 / prototypes.shape[0] if neg_weight is None else as_number("neg_weight", neg_weight)
    uses_triton = _pick(backend, embeddings, prototypes) == "triton"
    if uses_triton and embeddings.dtype != prototypes.dtype:  # tensor cores take two matrices of one type
        embeddings, prototypes = embeddings.float(), prototypes.float()
    form = triton.PrototypeLossTriton if uses_triton else PrototypeLossTorch
    with torch.autocast(embeddings.device.type, enabled=False):
        loss: Tensor = form.apply(embeddings, prototypes, labels, clean, pseudo_labels, alpha, neg_weight, set_sizes)
    return loss if is_tensor else loss.numpy()[()]


@torch.no_grad()
def prototype_scores(embeddings: Array, prototypes: Array, labels: Array) -> Array:
    """The clean probability q(z_i = 0) = sg(v_i . c_{y_i}) of each sample (CPC), for a batch or a whole data set.

    embeddings: (N, d) floating, N >= 0. prototypes: (K, d) floating. labels: (N,) int64 in [0, K). Returns (N,) in
    [0, 1], float32 (float64 where an input is float64), without a gradient. ValueError as ``prototype_loss``.
    """
    is_tensor = isinstance(embeddings, Tensor) or isinstance(prototypes, Tensor)
    embeddings, prototypes, labels = _tensors(embeddings, prototypes, labels)
    check_embeddings(embeddings, prototypes, labels)
    if _pick("auto", embeddings, prototypes) == "torch":
        scores = prototype_scores_torch(embeddings, prototypes, labels)
    else:
        scores = triton.prototype_scores_triton(embeddings, prototypes, labels)
    return scores if is_tensor else scores.numpy()


def _tensors(embeddings: Array, prototypes: Array, labels: Array) -> tuple[Tensor, Tensor, Tensor]:
    """The three as tensors; what is no tensor moves to the device of the others."""
    device = next((part.device for part in (embeddings, prototypes) if isinstance(part, Tensor)), torch.device("cpu"))
    first = as_tensor("embeddings", embeddings, device)
    return first, as_tensor("prototypes", prototypes, device), as_ids("labels", labels, first.device)


def _pick(backend: Backend, embeddings: Tensor, prototypes: Tensor) -> Literal["triton", "torch"]:
    """The backend to use; ValueError where the one that is asked for cannot run."""
    if backend not in get_args(Backend):
        raise ValueError(f"backend: expected one of {', '.join(get_args(Backend))}, got {backend!r}")
    if backend == "torch":
        return "torch"
    reason = triton.unsupported_reason(embeddings, prototypes) if triton else "triton is not installed"
    if backend == "auto":
        if embeddings.is_cuda and reason:
            _log_fallback(reason)
        return "triton" if embeddings.is_cuda and not reason else "torch"
    if reason:
        raise ValueError(f"backend: triton cannot run here: {reason}")
    return "triton"


@cache
def _log_fallback(reason: str) -> None:
    """Say once for each reason that tensors on a GPU are not taken by Triton."""
    logger.warning("prototype loss and scores on a GPU by plain PyTorch instead of Triton: %s", reason)
