"""Symmetries applied from data: what moves, by how much, and what stays, on a small perceptron written out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from paramtrans.api.specs import BlockSpec, RotationGroup, SymmetryGroup, SymmetryMember, TensorSpec
from paramtrans.api.stacking import Params
from paramtrans.ops.symmetry import (
    balance,
    flip,
    permute,
    random_orbit,
    random_rotations,
    rescale,
    rotate,
    scales,
    unit_norms,
)

MODELS, HIDDEN, CHANNELS = 3, 4, 2
MEMBERS = (SymmetryMember("up", 0, 1), SymmetryMember("bias", 0, 1), SymmetryMember("down", 1, -1))
GROUP = SymmetryGroup("hidden", HIDDEN, MEMBERS, rescale=True)
FIXED = SymmetryGroup("hidden", HIDDEN, MEMBERS)
TENSORS = tuple(
    TensorSpec(name, shape)
    for name, shape in (
        ("up", (HIDDEN, CHANNELS)),
        ("bias", (HIDDEN,)),
        ("down", (CHANNELS, HIDDEN)),
        ("out", (CHANNELS,)),
    )
)
SPEC = BlockSpec(TENSORS, (GROUP,))


@pytest.fixture
def params() -> Params:
    generator = torch.Generator().manual_seed(0)
    return {spec.name: torch.randn(MODELS, *spec.shape, generator=generator) for spec in TENSORS}


def function(params: Params) -> Tensor:
    """What the perceptrons compute, `[models, 5, channels]`."""
    inputs = torch.randn(5, CHANNELS, generator=torch.Generator().manual_seed(9)).expand(MODELS, 5, CHANNELS)
    hidden = (inputs @ params["up"].mT + params["bias"][:, None]).relu()
    return hidden @ params["down"].mT + params["out"][:, None]


def test_a_permutation_moves_each_unit_of_each_model_to_its_place(params: Params) -> None:
    order = torch.tensor([[3, 2, 1, 0], [0, 1, 2, 3], [1, 3, 0, 2]])
    moved = permute(params, GROUP, order)
    for model in range(MODELS):
        for unit, before in enumerate(order[model].tolist()):
            assert torch.equal(moved["up"][model, unit], params["up"][model, before])
            assert torch.equal(moved["bias"][model, unit], params["bias"][model, before])
            assert torch.equal(moved["down"][model, :, unit], params["down"][model, :, before])
    assert moved["out"] is params["out"]
    torch.testing.assert_close(function(moved), function(params))


def test_a_rescaling_multiplies_what_feeds_a_unit_and_divides_what_reads_it(params: Params) -> None:
    factors = torch.tensor([[1.0, 2.0, 4.0, 0.5]] * MODELS)
    moved = rescale(params, GROUP, factors)
    assert torch.equal(moved["up"], params["up"] * factors[:, :, None])
    assert torch.equal(moved["bias"], params["bias"] * factors)
    assert torch.equal(moved["down"], params["down"] / factors[:, None])
    assert moved["out"] is params["out"]
    torch.testing.assert_close(function(moved), function(params))
    with pytest.raises(ValueError, match=r"\bhidden\b.*rescaled"):
        rescale(params, FIXED, factors)


def test_factors_are_taken_in_the_parameters_kind_of_number(params: Params) -> None:
    moved = rescale(params, GROUP, torch.full((MODELS, HIDDEN), 2.0, dtype=torch.float64))
    assert {tensor.dtype for tensor in moved.values()} == {torch.float32}


def test_norms_are_of_all_that_feeds_or_reads_a_unit_and_never_zero(params: Params) -> None:
    feeding = (params["up"].square().sum(2) + params["bias"].square()).sqrt()
    torch.testing.assert_close(unit_norms(params, GROUP, 1), feeding)
    torch.testing.assert_close(unit_norms(params, GROUP, -1), params["down"].square().sum(1).sqrt())
    silent = {name: tensor * 0 for name, tensor in params.items()}
    assert torch.equal(unit_norms(silent, GROUP, 1), torch.full((MODELS, HIDDEN), 1e-6))


def test_balance_makes_both_sides_of_a_unit_alike_whatever_the_scale_was(params: Params) -> None:
    balanced = balance(params, SPEC)
    torch.testing.assert_close(unit_norms(balanced, GROUP, 1), unit_norms(balanced, GROUP, -1))
    torch.testing.assert_close(function(balanced), function(params))
    scaled = rescale(params, GROUP, torch.tensor([[0.1, 3.0, 7.0, 1.0]] * MODELS))
    again = balance(scaled, SPEC)
    assert all(torch.allclose(again[name], balanced[name], rtol=1e-4, atol=1e-6) for name in balanced)
    fixed = balance(params, BlockSpec(TENSORS, (FIXED,)))
    assert all(torch.equal(fixed[name], params[name]) for name in params)


def test_an_orbit_moves_and_rescales_every_model_differently_and_keeps_its_function(params: Params) -> None:
    params = {name: tensor[:1].expand_as(tensor).clone() for name, tensor in params.items()}
    moved = random_orbit(params, SPEC, torch.Generator().manual_seed(1))
    torch.testing.assert_close(function(moved), function(params))
    again = random_orbit(params, SPEC, torch.Generator().manual_seed(1))
    assert all(torch.equal(moved[name], again[name]) for name in moved)
    assert not torch.allclose(moved["up"][0], moved["up"][1])
    still = random_orbit(params, BlockSpec(TENSORS, (FIXED,)), torch.Generator().manual_seed(1))
    assert torch.equal(still["bias"].sort(1).values, params["bias"].sort(1).values)
    assert not torch.equal(still["bias"], params["bias"])


@pytest.mark.parametrize("spread", [0.0, 0.5, 2.0])
def test_the_spread_of_an_orbit_is_that_of_its_logarithm(spread: float) -> None:
    group = SymmetryGroup("hidden", 2000, (SymmetryMember("a", 0, 1), SymmetryMember("b", 0, -1)), rescale=True)
    ones = {"a": torch.ones(2, 2000), "b": torch.ones(2, 2000)}
    spec = BlockSpec((TensorSpec("a", (2000,)), TensorSpec("b", (2000,))), (group,))
    given = {} if spread == 0.5 else {"spread": spread}
    moved = random_orbit(ones, spec, torch.Generator().manual_seed(2), **given)
    logarithms = moved["a"].log()
    assert abs(float(logarithms.mean())) < 0.1 * spread + 1e-9
    assert abs(float(logarithms.std()) - spread) <= 0.05 * spread
    torch.testing.assert_close(moved["a"] * moved["b"], torch.ones(2, 2000))


def test_signs_change_on_both_sides_and_an_odd_unit_does_the_same(params: Params) -> None:
    group = replace(FIXED, signs=True)
    signs = torch.tensor([[1.0, -1.0, -1.0, 1.0]] * MODELS)
    moved = flip(params, group, signs)
    assert torch.equal(moved["up"], params["up"] * signs[..., None])
    assert torch.equal(moved["down"], params["down"] * signs[:, None])
    torch.testing.assert_close(odd_function(moved), odd_function(params))
    orbit = random_orbit(params, BlockSpec(TENSORS, (group,)), torch.Generator().manual_seed(1))
    torch.testing.assert_close(odd_function(orbit), odd_function(params))
    assert not torch.equal(orbit["up"].sort(1).values, params["up"].sort(1).values)
    with pytest.raises(ValueError, match="hidden may not change their sign"):
        flip(params, FIXED, signs)


def odd_function(params: Params) -> Tensor:
    """What perceptrons with tanh compute, `[models, 5, channels]`."""
    inputs = torch.randn(5, CHANNELS, generator=torch.Generator().manual_seed(9)).expand(MODELS, 5, CHANNELS)
    return (inputs @ params["up"].mT + params["bias"][:, None]).tanh() @ params["down"].mT


def test_a_second_scale_is_between_its_own_members() -> None:
    params = {
        name: torch.rand(MODELS, HIDDEN, generator=torch.Generator().manual_seed(3)) + 0.5
        for name in ("writer", "middle", "reader")
    }
    first = (SymmetryMember("writer", 0, 1), SymmetryMember("middle", 0, -1), SymmetryMember("reader", 0))
    second = (SymmetryMember("middle", 0, 1), SymmetryMember("reader", 0, -1))
    group = SymmetryGroup("units", HIDDEN, first, rescale=True, further=(second,))
    spec = BlockSpec(tuple(TensorSpec(name, (HIDDEN,)) for name in params), (group,))
    moved = random_orbit(params, spec, torch.Generator().manual_seed(1))
    before, after = (torch.stack([*blocks.values()]).prod(0).sort(1).values for blocks in (params, moved))
    torch.testing.assert_close(after, before)
    assert [len(scaled.members) for scaled in scales(group)] == [3, 2]
    assert not torch.allclose((moved["writer"] * moved["middle"]).sort(1).values, (params["writer"] * params["middle"]))


def test_rotations_mix_the_values_of_each_head_and_leave_its_products() -> None:
    heads, width, channels = 2, 3, 5
    generator = torch.Generator().manual_seed(0)
    params = {name: torch.randn(MODELS, heads * width, channels, generator=generator) for name in ("query", "key")}
    members = tuple(SymmetryMember(name, 0) for name in params)
    group = RotationGroup("query-key", heads, width, members)
    spec = BlockSpec(tuple(TensorSpec(name, (heads * width, channels)) for name in params), rotations=(group,))
    moved = random_orbit(params, spec, torch.Generator().manual_seed(1))
    logits = [
        (blocks["query"].unflatten(1, (heads, width)).mT @ blocks["key"].unflatten(1, (heads, width)))
        for blocks in (params, moved)
    ]
    torch.testing.assert_close(logits[1], logits[0])
    assert not torch.allclose(moved["query"], params["query"])
    matrices = random_rotations(group, MODELS, torch.Generator().manual_seed(1))
    identity = torch.eye(width, dtype=matrices.dtype).expand_as(matrices)
    torch.testing.assert_close(matrices @ matrices.mT, identity)
    torch.testing.assert_close(rotate(moved, group, matrices.mT)["query"], params["query"])
