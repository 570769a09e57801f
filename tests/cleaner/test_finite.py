"""One NaN or infinity among many values is found, in whichever tensor it is."""

import pytest
import torch

from fastcpc.cleaner.finite import all_finite, non_finite


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("which", [0, 1])
def test_a_single_bad_value_is_found(bad: float, which: int) -> None:
    tensors = [torch.zeros(3, 4), torch.ones(5)]
    assert bool(all_finite(tensors)) and non_finite({"head": tensors}) == []
    tensors[which].view(-1)[2] = bad
    assert not bool(all_finite(tensors))
    assert non_finite({"good": [torch.ones(2)], "head": tensors, "empty": []}) == ["head"]
