"""How good a cleaner is, judged by trusted labels. Never read by training."""

import numpy as np
from scipy.stats import ks_2samp

from fastcpc.arrays import Bools, Floats, Ints


def auc(clean_prob_N: Floats, truly_clean_N: Bools) -> float | None:
    """Area under the ROC curve of the clean probability, clean against noisy; None where there is only one kind."""
    if truly_clean_N.all() or not truly_clean_N.any():
        return None
    from sklearn.metrics import roc_auc_score  # here: runs without true labels do not need scikit-learn

    return float(roc_auc_score(truly_clean_N, clean_prob_N))


def precision_recall_accuracy(held_clean_N: Bools, truly_clean_N: Bools) -> tuple[float | None, float | None, float]:
    """Precision, recall and accuracy of "predicted clean", as shares in [0, 1].

    Precision is None where no sample is predicted clean, recall where no sample is clean.
    """
    hits = float((held_clean_N & truly_clean_N).sum())
    held, clean = float(held_clean_N.sum()), float(truly_clean_N.sum())
    accuracy = float((held_clean_N == truly_clean_N).mean())
    return (hits / held if held else None, hits / clean if clean else None, accuracy)


def bernoulli_kl(prob_p_N: Floats, prob_q_N: Floats) -> float:
    """Mean over samples of KL(p || q) of two clean probabilities, in nats (Fig. 4); probabilities are kept 1e-6 off 0
    and 1."""
    p = np.clip(np.asarray(prob_p_N, np.float64), 1e-6, 1 - 1e-6)
    q = np.clip(np.asarray(prob_q_N, np.float64), 1e-6, 1 - 1e-6)
    return float(np.mean(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))))


def class_ks_pvalues(loss_N: Floats, labels_N: Ints, num_classes: int) -> list[float | None]:
    """For each class the p-value of a two-sample Kolmogorov-Smirnov test of its losses against all losses (Fig. 1).

    None for a class with fewer than 2 samples. Call it once for the clean and once for the noisy samples.
    """
    loss_N = np.asarray(loss_N, np.float64)
    values: list[float | None] = []
    for label in range(num_classes):
        own = loss_N[labels_N == label]
        values.append(float(ks_2samp(own, loss_N, method="asymp").pvalue) if len(own) >= 2 else None)
    return values
