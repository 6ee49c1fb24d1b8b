"""The parameter loss that is blind to the order of hidden units, and to their signs where blocks are."""

from __future__ import annotations

import torch
from paramtrans_objectives.mse import aligned

from paramtrans import BlockAdapter
from paramtrans.api.modules import initial
from paramtrans.ops.symmetry import flip, random_orbit
from paramtrans.plugins import components


def chain(activation: str) -> BlockAdapter:
    made: BlockAdapter = components().create(
        "block_adapter", "linear_chain", channels=4, hidden=[6], activation=activation
    )
    return made


def test_units_with_tanh_are_matched_in_their_order_and_with_their_signs() -> None:
    block = chain("tanh")
    like = initial(block.module, [0, 1])
    moved = random_orbit(like, block.spec, torch.Generator().manual_seed(3))
    assert not torch.allclose(moved["fc1.weight"], like["fc1.weight"])
    again = aligned(moved, like, block.spec)
    for name, tensor in like.items():
        torch.testing.assert_close(again[name], tensor)


def test_the_signs_of_other_units_stay() -> None:
    tanh, gelu = chain("tanh"), chain("gelu")
    like = initial(gelu.module, [0, 1])
    flipped = flip(like, tanh.spec.symmetries[0], -torch.ones(2, 6))
    again = aligned(flipped, like, gelu.spec)
    sizes = [blocks["fc1.weight"].abs().sum((1, 2)) for blocks in (again, like)]
    torch.testing.assert_close(*sizes)
    assert not torch.allclose(again["fc1.weight"], like["fc1.weight"])
