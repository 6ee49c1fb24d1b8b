"""How much the outputs of a network depend on what leaves its parts, and what blocks make of that."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import paramtrans
from paramtrans.networks.parts.weights import output_weights, spread


class HalfRead(nn.Module):
    """What leaves `part` is read with different weights, and by a layer that writes to what it is given."""

    def __init__(self, counts: Tensor) -> None:
        super().__init__()
        self.part = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 6))
        self.clip = nn.Hardtanh(-99, 99, inplace=True)
        self.head = nn.Linear(6, 6)
        with torch.no_grad():
            self.head.weight.copy_(torch.diag(counts))

    def forward(self, features: Tensor) -> Tensor:
        return self.head(self.clip(self.part(features)))


COUNTS = torch.tensor([0.0, 1.0, 2.0, 0.5, 3.0, 0.1])


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return HalfRead(COUNTS).eval().requires_grad_(False)


def test_weights_are_the_mean_square_of_the_outputs_derivative(network: nn.Module) -> None:
    weights = output_weights(network, ["part", "part.0"], torch.randn(20, 6))
    squares = COUNTS.square()
    assert torch.allclose(weights["part"][0], squares / squares.mean())
    assert weights["part.0"].shape == (1, 16) and weights["part.0"].mean() == pytest.approx(1)
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_what_no_output_depends_on_has_no_weights(network: nn.Module) -> None:
    nn.init.zeros_(network.head.weight)
    assert output_weights(network, ["part"], torch.randn(4, 6)) == {}


def test_weights_of_positions_become_one_where_inputs_have_other_lengths() -> None:
    weights = torch.rand(1, 5, 3)
    assert spread(weights, [torch.zeros(2, 5, 3), torch.zeros(1, 5, 3)]) is weights
    assert torch.equal(spread(weights, [torch.zeros(2, 5, 3), torch.zeros(2, 7, 3)]), weights.mean(1, keepdim=True))


def test_a_block_that_cannot_do_all_does_what_the_outputs_depend_on(network: nn.Module) -> None:
    inputs = torch.randn(256, 6, generator=torch.Generator().manual_seed(1))
    lost = {}
    for weigh in (False, True):
        small = paramtrans.translate(
            network,
            to={"part": "linear_chain?hidden=[2]"},
            options={"weigh": weigh, "steps": 400},
            calibrate=inputs.split(64),
        )
        [block] = small.paramtrans_blocks
        lost[weigh] = block.feature_error, float((small(inputs) - network(inputs)).square().mean())
    assert lost[True][1] < 0.9 * lost[False][1]  # of the outputs less is lost
    assert lost[True][0] > lost[False][0]  # of the features more, and all of these count alike in what is said
