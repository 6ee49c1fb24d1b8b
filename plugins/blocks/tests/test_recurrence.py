"""Sums over the positions before, in chunks, against the recurrence as it is defined."""

from __future__ import annotations

import pytest
import torch
from paramtrans_blocks.recurrence import decayed_sums
from torch import Tensor

import paramtrans
from paramtrans import components


def one_by_one(query: Tensor, key: Tensor, value: Tensor, decay: Tensor) -> Tensor:
    state, given = torch.zeros_like(key[..., 0, :, None] * value[..., 0, None, :]), []
    for position in range(query.shape[-2]):
        added = key[..., position, :, None] * value[..., position, None, :]
        state = decay[..., position, None, None].exp() * state + added
        given.append((query[..., position, None, :] @ state)[..., 0, :])
    return torch.stack(given, dim=-2)


@pytest.mark.parametrize("positions", [1, 8, 21])
@pytest.mark.parametrize("strength", [0.0, 3.0, 60.0])
def test_chunks_give_what_the_recurrence_does(positions: int, strength: float) -> None:
    """Also where a chunk's sums are gone before its end."""
    torch.manual_seed(0)
    query, key = torch.randn(2, 2, 3, positions, 4, dtype=torch.double)
    value, decay = torch.randn(2, 3, positions, 5, dtype=torch.double), -strength * torch.rand(2, 3, positions).double()
    given = decayed_sums(query, key, value, decay, chunk=8)
    torch.testing.assert_close(given, one_by_one(query, key, value, decay))


def test_a_state_space_layer_is_the_recurrence_of_its_layers() -> None:
    """Each position weighs those before by its own queries and their keys, by steps and by what has faded between."""
    torch.manual_seed(0)
    sizes = {"channels": 6, "heads": 2, "width": 3, "causal": True, "skip": "none", "kernel": 1}
    block = components().create("block_adapter", "state_space", **sizes).module().double()
    torch.nn.init.constant_(block.log_rate, -1.0)
    x = torch.randn(2, 7, 6, dtype=torch.double)
    query, key, value = (
        layer(x).unflatten(-1, (2, 3)).transpose(1, 2) for layer in (block.query, block.key, block.value)
    )
    fast, slow = (torch.cat([each.softmax(-1), (-each).softmax(-1)], -1) for each in (query, key))
    steps = torch.nn.functional.softplus(block.step(x)).mT
    decay = -steps * block.log_rate.exp()
    sums = one_by_one(fast, slow, steps[..., None] * value, decay)
    total = one_by_one(fast, slow, steps[..., None], decay)
    mixed = (sums / total).transpose(1, 2).flatten(2)
    torch.testing.assert_close(block(x), block.out(mixed))


def test_from_both_ends_every_pair_fades_by_what_lies_between() -> None:
    torch.manual_seed(0)
    sizes = {"channels": 6, "heads": 1, "width": 3, "skip": "none", "kernel": 1}
    block = components().create("block_adapter", "state_space", **sizes).module().double()
    query, key = torch.rand(2, 1, 7, 4, dtype=torch.double)
    value, decay = torch.randn(1, 7, 3, dtype=torch.double), -torch.rand(1, 7, dtype=torch.double)
    until = decay.cumsum(-1)
    between = -(until[..., :, None] - until[..., None, :]).abs()
    torch.testing.assert_close(block._sums(query, key, value, decay), (query @ key.mT * between.exp()) @ value)


@pytest.mark.parametrize("causal", [True, False])
def test_without_fading_it_is_linear_attention(causal: bool) -> None:
    torch.manual_seed(0)
    sizes = {"channels": 6, "heads": 2, "width": 3, "causal": causal}
    linear, state_space = (
        paramtrans.components().create("block_adapter", name, **sizes).module()
        for name in ("linear_attention", "state_space")
    )
    state_space.load_state_dict(linear.state_dict(), strict=False)
    torch.nn.init.zeros_(state_space.step.weight)
    x = torch.randn(2, 9, 6)
    assert 0 < (state_space(x) - linear(x)).abs().max() < 1e-2
    torch.nn.init.constant_(state_space.log_rate, -100.0)
    torch.testing.assert_close(state_space(x), linear(x), rtol=1e-4, atol=1e-5)
