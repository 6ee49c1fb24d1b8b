"""Low rank and quantisation: exact where nothing has to go, near elsewhere, refused where they make no sense."""

from __future__ import annotations

import pytest
import torch
from paramtrans_refit.quantise import rounded

from paramtrans import BlockAdapter, components
from paramtrans.api.modules import initial
from paramtrans.backends.vmap import block_stacked
from paramtrans.errors import SpecMismatch

MODELS = 3


def adapter(name: str, **options: object) -> BlockAdapter:
    created: BlockAdapter = components().create("block_adapter", name, channels=4, **options)
    return created


def error(rank: int) -> float:
    """Of what the block computes, by low rank, relative to what it is."""
    source, target = adapter("basic_block"), adapter("low_rank", rank=rank)
    params = initial(source.module, range(MODELS))
    params["bn1.bias"] += 0.3
    params["bn2.running_mean"] -= 0.2
    inputs = torch.randn(MODELS, 5, 4, 6, 6, generator=torch.Generator().manual_seed(1))
    expected = block_stacked(source)(params, inputs)
    written = components().create("translator", "low_rank", source, target).translate(params)
    output = block_stacked(target)(written, inputs)
    return float((output - expected).norm() / expected.norm())


def test_full_rank_computes_what_the_source_does_and_more_is_no_better() -> None:
    assert error(4) < 1e-5 and error(6) < 1e-5


def test_a_lower_rank_is_further_away() -> None:
    assert 1e-3 < error(3) < error(2) < error(1)


@pytest.mark.parametrize("target", [adapter("conv", hidden=2), adapter("mlp", hidden=3), adapter("attention")])
@pytest.mark.parametrize("name", ["low_rank", "quantise"])
def test_other_blocks_are_refused(name: str, target: BlockAdapter) -> None:
    with pytest.raises(SpecMismatch):
        components().create("translator", name, adapter("basic_block"), target)


def test_rounding_is_off_by_half_a_step_at_most_and_has_few_levels() -> None:
    weight = torch.randn(MODELS, 5, 7, 3, 3, generator=torch.Generator().manual_seed(0))
    for bits in (8, 4, 2):
        values = rounded(weight, bits)
        step = weight.flatten(2).abs().amax(2) / (2 ** (bits - 1) - 1)
        assert ((values - weight).flatten(2).abs().amax(2) <= step / 2 * (1 + 1e-4)).all()
        assert max(len(row.unique()) for row in values.flatten(0, 1).flatten(1)) <= 2**bits - 1
    zero = torch.zeros_like(weight)
    assert torch.equal(rounded(zero, 4), zero)


def test_a_quantised_block_is_kept_in_fewer_bytes() -> None:
    block = adapter("basic_block")
    sizes = {
        bits: components().create("translator", "quantise", block, block, bits=bits).target_bytes for bits in (8, 4)
    }
    weights, other_values, scales = 2 * 4 * 4 * 9, 2 * 4 * 4, 8
    assert sizes == {8: weights + 4 * (other_values + scales), 4: weights // 2 + 4 * (other_values + scales)}
    narrow = adapter("conv", hidden=2)
    assert (
        components().create("translator", "prune", block, adapter("conv", hidden=2)).target_bytes
        == 4 * narrow.spec.numel
    )
