"""Made-up small states, as bench/small_state.py holds them; not a test itself."""

from types import ModuleType

import torch


def made_up(small_state: ModuleType, stretches: int = 1, fill: float | None = None):
    """A pair of networks whose tensors need more digits than bf16 has; fill: all of this value instead."""
    draw = torch.Generator().manual_seed(stretches)

    def tensor(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draw) if fill is None else torch.full(shape, fill)

    shapes = {"large": (300, 256), "wide_vector": (5000,), "small": (63, 65), "running_var": (256,)}
    networks = [
        {name: tensor(*shape) for name, shape in shapes.items()} | {"count": torch.tensor(7 + net)} for net in (1, 2)
    ]
    group = [{"lr": 0.02, "params": [0, 1]}]
    learners = [
        {
            "optimizer": {
                "state": {0: {"momentum_buffer": tensor(300, 256)}, 1: {"momentum_buffer": tensor(9)}},
                "param_groups": group,
            },
            "cpc_optimizer": {"state": {0: {"momentum_buffer": tensor(128, 64)}}, "param_groups": group},
            "history": tensor(2, 5000),
            "partition": [torch.arange(5000) % 3 == 0, tensor(5000).double()],
        }
        for _ in networks
    ]
    state = {"members": learners, "position": {"epoch": stretches, "stage": 0, "step": 0}, "past": {"seconds": 1.25}}
    return small_state.SmallState(
        epoch=stretches, config="run:\n  seed: 3\n", metrics='{"epoch": 0}\n',
        stretches=[{"seconds": number} for number in range(stretches)], summary=None, header={"model": "made_up"},
        networks=networks, state=state,
    )  # fmt: skip


def same(one, two) -> bool:
    """Whether two values are equal, tensors bit for bit and of one type."""
    if isinstance(one, torch.Tensor):
        return one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two
