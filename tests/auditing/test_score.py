"""The label score: the margin of the probabilities, with the confusion matrix where classes are mistaken."""

import pytest
import torch

from fastcpc.auditing.score import label_score

PROB_NK = torch.tensor([[0.4, 0.6, 0.0], [0.6, 0.4, 0.0], [0.4, 0.0, 0.6]])
GIVEN_N = torch.tensor([0, 0, 0])
MISTAKEN_KK = torch.tensor([[1.0, 0.0, 0.0], [0.4, 0.6, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)  # 1 given as 0


def margin(prob_K: list[float]) -> float:
    """sigmoid(log(p[0] / largest other) / 4)"""
    return float((torch.tensor(prob_K[0] / max(prob_K[1:])).double().log() / 4).sigmoid())


def test_at_low_noise_or_without_confusions_the_score_is_the_margin() -> None:
    no_confusion = label_score(PROB_NK, torch.eye(3, dtype=torch.float64), GIVEN_N, is_low=True)
    expected = [margin([0.4, 0.6]), margin([0.6, 0.4]), margin([0.4, 0.6])]
    # smoothing 1: the diagonal counts log 2 for the given label
    shift = float(torch.tensor(2.0).log()) / 4
    assert no_confusion.logit().sub(shift).sigmoid().tolist() == pytest.approx(expected, abs=1e-6)


def test_known_confusion_lowers_the_score() -> None:
    plain = label_score(PROB_NK, MISTAKEN_KK, GIVEN_N, is_low=True)
    structured = label_score(PROB_NK, MISTAKEN_KK, GIVEN_N, is_low=False)
    assert structured[0] < structured[2], "class 1 is often given as 0, class 2 never"
    assert structured[0] < structured[1]
    assert plain[2] - plain[0] < structured[2] - structured[0]
    assert ((structured >= 0) & (structured <= 1)).all()
