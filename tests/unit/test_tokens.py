"""Blocks as tokens and back, bit for bit."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st

from paramtrans.api.specs import BlockSpec, TensorSpec
from paramtrans.ops.tokens import TokenLayout
from paramtrans.plugins import Plugins

BLOCKS: list[tuple[str, dict[str, Any]]] = [
    ("basic_block", {"channels": 6}),
    ("basic_block", {"channels": 4, "hidden": 3, "kernel": 1, "read": "all"}),
    ("basic_block", {"channels": 5, "hidden": 7, "kernel": 5, "read": "weights"}),
    ("conv", {"channels": 6, "hidden": 3}),
    ("conv", {"channels": 3, "hidden": 1, "kernel": 5, "bias": True}),
    ("mlp", {"channels": 6, "hidden": 12}),
    ("mlp", {"channels": 1, "hidden": 1}),
    ("attention", {"channels": 6}),
    ("attention", {"channels": 4, "hidden": 3}),
    ("conv_chain", {"channels": 4, "hidden": [3]}),
    ("linear_chain", {"channels": 4, "hidden": [5]}),
    ("heads", {"channels": 4, "heads": 2, "width": 3}),
    ("low_rank", {"channels": 6, "rank": 2}),
    ("depthwise_separable", {"channels": 6}),
    ("bottleneck", {"channels": 6, "hidden": [3, 2]}),
    ("grouped_query", {"channels": 6, "heads": 4, "width": 2}),
    ("latent_attention", {"channels": 6, "heads": 3, "width": 2}),
    ("linear_attention", {"channels": 6, "heads": 3, "width": 2, "window": 1}),
    ("gated_mlp", {"channels": 6, "hidden": 4}),
    ("low_rank_linear", {"channels": 6, "rank": 2}),
    ("low_rank_conv", {"channels": 6, "rank": 2}),
    ("monarch", {"channels": 6, "blocks": 3}),
    ("linear_map", {"channels": 6}),
    ("conv_mixer", {"channels": 6, "heads": 3, "width": 2, "reach": 1}),
    ("state_space", {"channels": 6, "heads": 3, "width": 2}),
    ("mixture_of_experts", {"channels": 6, "gated": True}),
    ("grouped_conv", {"channels": 6, "groups": 3}),
    ("merged_conv", {"channels": 6}),
    ("rms_norm", {"channels": 6}),
    ("layer_norm", {"channels": 6, "bias": False}),
    (
        "sequence",
        {
            "channels": 4,
            "blocks": [{"name": "basic_block", "channels": 4}, {"name": "mlp", "channels": 4, "hidden": 3}],
        },
    ),
]


def first_party_registry():
    loaded = Plugins()
    loaded.load_entry_points()
    return loaded.registry()


def random_bits(spec: BlockSpec, models: int) -> dict[str, torch.Tensor]:
    """Any bit patterns, infinities, NaNs and negative zeros among them."""
    generator = torch.Generator().manual_seed(models)
    return {
        t.name: torch.randint(-(2**31), 2**31, (models, *t.shape), generator=generator, dtype=torch.int64)
        .to(torch.int32)
        .view(torch.float32)
        for t in spec.tensors
    }


def same_bits(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return list(first) == list(second) and all(
        first[n].shape == second[n].shape
        and torch.equal(first[n].contiguous().view(torch.int32), second[n].contiguous().view(torch.int32))
        for n in first
    )


def test_every_first_party_block_is_tried() -> None:
    assert {name for name, _ in BLOCKS} == {entry.name for entry in first_party_registry().of_kind("block_adapter")}


@pytest.mark.parametrize("width", [1, 2, 9, 25, 10_000])
@pytest.mark.parametrize(("name", "options"), BLOCKS, ids=str)
def test_blocks_go_there_and_back_bit_for_bit(name: str, options: dict[str, Any], width: int) -> None:
    adapter = first_party_registry().create("block_adapter", name, **options)
    for spec in (adapter.spec, adapter.reading):
        layout, params = TokenLayout(spec.tensors, width), random_bits(spec, 3)
        tokens = layout.pack(params)
        assert tokens.shape == (3, math.ceil(spec.numel / width), width) == (3, layout.count, layout.width)
        assert same_bits(layout.unpack(tokens), params)
        assert not tokens.flatten(1)[:, spec.numel :].any()


@settings(deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple), min_size=1, max_size=5),
    width=st.integers(1, 20),
    models=st.integers(1, 3),
)
def test_any_tensors_at_any_width_go_there_and_back(shapes: list[tuple[int, ...]], width: int, models: int) -> None:
    spec = BlockSpec(tuple(TensorSpec(f"t{i}", shape) for i, shape in enumerate(shapes)))
    layout, params = TokenLayout(spec.tensors, width), random_bits(spec, models)
    assert same_bits(layout.unpack(layout.pack(params)), params)


def test_scalars_go_there_and_back() -> None:
    spec = BlockSpec((TensorSpec("gain", ()), TensorSpec("w", (2, 2))))
    layout, params = TokenLayout(spec.tensors, 3), random_bits(spec, 2)
    assert same_bits(layout.unpack(layout.pack(params)), params)


def test_every_value_has_one_place_of_its_own() -> None:
    spec = BlockSpec((TensorSpec("b", (3,)), TensorSpec("w", (2, 5)), TensorSpec("k", (2, 1, 3, 3))))
    numbered = {t.name: 100.0 * (i + 1) + torch.arange(t.numel).view(1, *t.shape) for i, t in enumerate(spec.tensors)}
    layout = TokenLayout(spec.tensors, 9)
    placed = layout.pack(numbered).flatten()[: layout.numel]
    assert sorted(placed.tolist()) == sorted(v for t in numbered.values() for v in t.flatten().tolist())


def test_vectors_come_last_so_that_kernels_stay_whole() -> None:
    spec = (TensorSpec("conv.bias", (2,)), TensorSpec("conv.weight", (2, 3, 3, 3)))
    weight = torch.rand(1, 2, 3, 3, 3)
    tokens = TokenLayout(spec, 9).pack({"conv.bias": torch.rand(1, 2), "conv.weight": weight})
    assert torch.equal(tokens[0, :6], weight.reshape(6, 9))


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("basic_block", {"channels": 6, "read": "weights"}, 72),
        ("conv", {"channels": 6, "hidden": 3}, 36),
        ("mlp", {"channels": 6, "hidden": 12}, 18),
        ("attention", {"channels": 6}, 16),
    ],
)
def test_the_papers_blocks_have_the_papers_token_counts(name: str, options: dict[str, Any], count: int) -> None:
    adapter = first_party_registry().create("block_adapter", name, **options)
    assert TokenLayout(adapter.reading.tensors, 9).count == count


def test_gradients_pass_through_both_ways() -> None:
    spec = (TensorSpec("w", (2, 3)), TensorSpec("b", (2,)))
    params = {"w": torch.rand(2, 2, 3, requires_grad=True), "b": torch.rand(2, 2, requires_grad=True)}
    layout = TokenLayout(spec, 4)
    layout.unpack(layout.pack(params))["w"].sum().backward()
    assert torch.equal(params["w"].grad, torch.ones(2, 2, 3))
    assert not params["b"].grad.any()
