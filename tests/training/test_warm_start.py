"""Earlier weights go into deeper networks, and into no others."""

import pytest
import torch
from torch import nn

from training.warm_start import warm_start


def network(depth: int, width: int = 4) -> nn.ModuleDict:
    layers = nn.ModuleList(
        nn.ModuleDict({"inner": nn.Linear(width, width), "gate": nn.Linear(width, width)})
        for _ in range(depth)
    )
    return nn.ModuleDict({"first": nn.Linear(2, width), "layers": layers})


def test_what_is_there_is_taken_and_gates_of_new_blocks_are_closed() -> None:
    earlier, deeper = network(1), network(2)

    warm_start(deeper, earlier.state_dict(), gates=("gate",))

    state = deeper.state_dict()
    assert all(torch.equal(state[name], weight) for name, weight in earlier.state_dict().items())
    assert not state["layers.1.gate.weight"].any()
    assert not state["layers.1.gate.bias"].any()
    assert state["layers.1.inner.weight"].any()


@pytest.mark.parametrize("name", ["first.bias", "layers.0.inner.weight"])
def test_a_part_that_is_missing_is_an_error(name: str) -> None:
    weights = network(1).state_dict()
    del weights[name]

    with pytest.raises(ValueError, match=name):
        warm_start(network(2), weights, gates=("gate",))


def test_a_part_that_is_left_over_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"layers\.1\.gate"):
        warm_start(network(1), network(2).state_dict(), gates=("gate",))
