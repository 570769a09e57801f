"""Large images on a CPU take other paths than small ones: the values must be the same."""

import pytest
import torch
from made_photos import texture

from fastcpc.config.schema import AugmentConfig
from fastcpc.data import augment_ops
from fastcpc.data.augment import StrongAugmenter
from fastcpc.data.augment_ops import NUM_STRENGTHS, POINT_OPS
from fastcpc.data.policies import strong_policy
from fastcpc.data.seeds import generator

SIDE = 66


def images() -> torch.Tensor:
    made = torch.stack([torch.from_numpy(texture(SIDE, SIDE, seed)) for seed in range(6)]).permute(0, 3, 1, 2).clone()
    made[4] = 77  # one level only
    made[5, 1] = 200
    return made.contiguous()


@pytest.mark.parametrize("op", list(POINT_OPS))
def test_tables_give_what_arithmetic_gives(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.zeros(6, NUM_STRENGTHS)
    factor = torch.tensor([0.1, 0.5, 1.0, 1.4, 1.9, 1.9])
    levels = torch.tensor([0.0, 64, 128, 192, 240, 255])
    rows[:, 0], rows[:, 1] = (levels, 0) if op in ("Posterize", "Solarize") else (factor, 1 - factor)
    monkeypatch.setattr(augment_ops, "LARGE", 10**9)
    expected = POINT_OPS[op](images(), rows)
    monkeypatch.setattr(augment_ops, "LARGE", 1)
    assert POINT_OPS[op](images(), rows).equal(expected)


@pytest.mark.parametrize("strong", ["autoaugment", "randaugment", "geometric"])
def test_image_by_image_is_the_same_as_by_groups(strong: str) -> None:
    policy = strong_policy(AugmentConfig(strong=strong), photos=True)  # type: ignore[arg-type]
    augmenter = StrongAugmenter(policy, SIDE, torch.device("cpu"))
    plan, start = augmenter.plan(6, generator(1)), images()
    grouped = augmenter.apply(start.clone() if plan.moves is None else start[plan.moves[0]], plan)
    each = images()
    augmenter.apply_each(each, plan)
    assert each.equal(grouped.to(torch.uint8)) and not each.equal(start)
