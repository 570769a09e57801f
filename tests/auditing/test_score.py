"""The label score: the odds of the given label, with the confusion matrix where classes are mistaken."""

import numpy as np
import pytest
import torch

from fastcpc.auditing import score
from fastcpc.auditing.confident import ConfidentLabels
from fastcpc.auditing.score import OF_FIRST, find_suspects, label_score

PROB_NK = torch.tensor([[0.4, 0.6, 0.0], [0.6, 0.4, 0.0], [0.4, 0.0, 0.6]])
GIVEN_N = torch.tensor([0, 0, 0])
MISTAKEN_KK = np.array([[1.0, 0.0, 0.0], [0.4, 0.6, 0.0], [0.0, 0.0, 1.0]])  # class 1 given as 0


def confident(matrix_KK: np.ndarray, rate: float = 0.1) -> ConfidentLabels:
    return ConfidentLabels(matrix_KK, (rate, rate), rate, 100, 0.0)


def odds(prob_K: list[float]) -> float:
    """sigmoid(log(p[0] / sum of the others) / 4)"""
    return float((torch.tensor(prob_K[0] / sum(prob_K[1:])).double().log() / 4).sigmoid())


def test_without_confusions_the_score_is_the_odds() -> None:
    score_N = label_score(PROB_NK, PROB_NK, confident(np.eye(3)), GIVEN_N)
    expected = [odds([0.4, 0.6]), odds([0.6, 0.4]), odds([0.4, 0.6])]
    # smoothing 1: the diagonal counts log 2 for the given label
    shift = float(torch.tensor(2.0).log()) / 4
    assert score_N.logit().sub(shift).sigmoid().tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("numbers", [1, 6, 100])
def test_parts_are_put_together(numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of one row, of two rows with a shorter last one, and a single part: the formula of all rows at once."""
    monkeypatch.setattr(score, "CHUNK", numbers)
    first_NK, given_N, w = PROB_NK.flip(0), torch.tensor([0, 2, 1]), OF_FIRST
    matrix_KK = np.full((3, 3), 0.1) + 0.7 * np.eye(3)
    evidence_NK = torch.from_numpy(np.log(matrix_KK + 1).T)[given_N]
    evidence_NK += w * first_NK.double().clamp_min(1e-12).log() + (1 - w) * PROB_NK.double().clamp_min(1e-12).log()
    is_given_NK = torch.nn.functional.one_hot(given_N, 3).bool()
    others_N = evidence_NK.masked_fill(is_given_NK, -torch.inf).logsumexp(1)
    expected_N = ((evidence_NK[is_given_NK] - others_N) / 4).sigmoid()
    torch.testing.assert_close(label_score(first_NK, PROB_NK, confident(matrix_KK), given_N), expected_N)


def test_known_confusion_lowers_the_score() -> None:
    plain = label_score(PROB_NK, PROB_NK, confident(np.eye(3)), GIVEN_N)
    structured = label_score(PROB_NK, PROB_NK, confident(MISTAKEN_KK), GIVEN_N)
    assert structured[0] < structured[2], "class 1 is often given as 0, class 2 never"
    assert structured[0] < structured[1]
    assert plain[2] - plain[0] < structured[2] - structured[0]
    assert ((structured >= 0) & (structured <= 1)).all()


def test_the_first_round_counts_where_labels_are_wrong_at_random() -> None:
    given_N, other_NK = torch.zeros(3, dtype=torch.int64), PROB_NK.flip(1)
    middle_NK = PROB_NK.double().clamp_min(1e-12) ** OF_FIRST * other_NK.double().clamp_min(1e-12) ** (1 - OF_FIRST)
    mean = label_score(PROB_NK, other_NK, confident(np.eye(3)), given_N)
    torch.testing.assert_close(mean, label_score(middle_NK, middle_NK, confident(np.eye(3)), given_N))
    mistaken = confident(MISTAKEN_KK)
    torch.testing.assert_close(
        label_score(PROB_NK, other_NK, mistaken, given_N), label_score(other_NK, other_NK, mistaken, given_N)
    )


def test_the_probabilities_stay_as_they_are() -> None:
    """float64 is not converted, so that an operation in place would change the caller's array."""
    first_NK, last_NK = PROB_NK.double(), PROB_NK.double().flip(1)
    label_score(first_NK, last_NK, confident(np.eye(3)), GIVEN_N)
    assert first_NK.equal(PROB_NK.double()) and last_NK.equal(PROB_NK.double().flip(1))


def test_the_last_heads_count_where_many_labels_are_wrong() -> None:
    other_NK, many = PROB_NK.flip(1), confident(np.eye(3), rate=0.5)
    torch.testing.assert_close(
        label_score(PROB_NK, other_NK, many, GIVEN_N), label_score(other_NK, other_NK, many, GIVEN_N)
    )
    few = label_score(PROB_NK, other_NK, confident(np.eye(3)), GIVEN_N)
    assert not torch.allclose(few, label_score(other_NK, other_NK, many, GIVEN_N))


def test_suspects_are_the_lowest_scores_with_another_suggestion() -> None:
    score_N, predicted_N = np.array([0.1, 0.3, 0.2, 0.9]), np.array([1, 1, 0, 1])
    given_N = np.zeros(4, np.int64)
    assert find_suspects(score_N, predicted_N, given_N, 0.5).tolist() == [True, False, False, False]
    assert find_suspects(score_N, predicted_N, given_N, 0.75).tolist() == [True, True, False, False]
    assert not find_suspects(score_N, predicted_N, given_N, 0.0).any()
