"""The refit against oracles: brute force over units, least squares over all rows at once, blocks that are exact."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from paramtrans_refit.choose import by_elimination
from paramtrans_refit.shrink import shrunk
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from paramtrans import components
from paramtrans.api.adapter import BlockAdapter
from paramtrans.api.context import Context, Entering
from paramtrans.api.modules import initial
from paramtrans.api.stacking import Params
from paramtrans.backends.vmap import block_stacked
from paramtrans.errors import SpecMismatch
from paramtrans.ops.agreement import disagreement
from paramtrans.ops.halves import Halves
from paramtrans.ops.least_squares import GramMatrices
from paramtrans.ops.rows import rows
from paramtrans.ops.views import plain, whole

REGISTRY = components()
CHANNELS = 4


class Features(Context):
    """A context whose features enter the slot as given, in pieces."""

    def __init__(self, *pieces: Tensor, original: Tensor | None = None, **options: Any) -> None:
        super().__init__(**options)
        object.__setattr__(self, "pieces", [Entering(p, p if original is None else original) for p in pieces])

    def entering(self) -> Iterator[Entering]:
        yield from self.pieces  # type: ignore[attr-defined]


def adapter(name: str, **options: Any) -> BlockAdapter:
    created: BlockAdapter = REGISTRY.create("block_adapter", name, channels=CHANNELS, **options)
    return created


def used(block: BlockAdapter, count: int = 2, seed: int = 0) -> Params:
    """Blocks with normalisation as after training."""
    params = initial(block.module, range(seed, seed + count))
    generator = torch.Generator().manual_seed(seed)
    for tensor in block.spec.tensors:
        if tensor.kind.startswith("norm"):
            values = torch.rand(params[tensor.name].shape, generator=generator)
            params[tensor.name] = values + 0.5 if "mean" not in tensor.kind else values - 0.5
    return params


def features(count: int = 40, seed: int = 3) -> Tensor:
    return torch.randn(2, count, CHANNELS, 5, 5, generator=torch.Generator().manual_seed(seed))


def refit(source: BlockAdapter, target: BlockAdapter, params: Params, context: Context, **options: Any) -> Params:
    translator = REGISTRY.create("translator", "refit", source, target, **options)
    written: Params = translator.translate(params, context)
    return written


def error(source: BlockAdapter, params: Params, target: BlockAdapter, written: Params, inputs: Tensor) -> float:
    expected, output = block_stacked(source)(params, inputs), block_stacked(target)(written, inputs)
    return (mse_loss(output, expected) / expected.var()).item()


@pytest.mark.parametrize("target", [("basic_block", {}), ("conv", {"hidden": 4, "bias": True})])
def test_with_all_units_kept_the_function_stays(target: tuple[str, dict[str, Any]]) -> None:
    source, target_adapter = adapter("basic_block"), adapter(target[0], **target[1])
    params = used(source)
    written = refit(source, target_adapter, params, Features(features()))
    assert error(source, params, target_adapter, written, features(seed=8)) < 1e-6


def test_units_that_do_nothing_are_left_out_and_those_that_do_are_found() -> None:
    """Half of the units are dead or copies of another: the block is exact without them."""
    source, target = adapter("conv", hidden=6, bias=True), adapter("conv", hidden=3, bias=True)
    params = used(source)
    params["conv1.weight"][:, 1] = params["conv1.weight"][:, 4]
    params["conv1.bias"][:, 1] = params["conv1.bias"][:, 4]
    params["conv2.weight"][:, :, 2] = 0
    params["conv1.bias"][:, 5] = -100.0
    written = refit(source, target, params, Features(features()))
    assert error(source, params, target, written, features(seed=8)) < 1e-5


def test_units_chosen_by_error_are_better_than_the_strongest() -> None:
    source, target = adapter("basic_block", hidden=8), adapter("basic_block", hidden=4)
    params, context = used(source), Features(features())
    errors = {
        units: error(source, params, target, refit(source, target, params, context, units=units), features(seed=8))
        for units in ("error", "norm")
    }
    assert errors["error"] < errors["norm"]


@pytest.mark.parametrize("size", [1, 2])
def test_elimination_takes_the_unit_that_is_least_important(size: int) -> None:
    """Brute force: the error without each unit, from the equations themselves."""
    generator = torch.Generator().manual_seed(1)
    read = torch.randn(1, 200, 5 * size, generator=generator) @ torch.randn(5 * size, 5 * size, generator=generator)
    expected = read @ torch.randn(5 * size, 3, generator=generator) + torch.randn(1, 200, 3, generator=generator)
    units_kept = by_elimination(GramMatrices.of(read, expected).plain(), 5, 4)

    def left(units: tuple[int, ...]) -> float:
        read_of_units = torch.cat([read[0, :, unit * size : (unit + 1) * size] for unit in units], 1).double()
        target = expected[0].double()
        return (read_of_units @ torch.linalg.lstsq(read_of_units, target).solution - target).square().sum().item()

    assert tuple(units_kept[0].tolist()) == min(itertools.combinations(range(5), 4), key=left)


@pytest.mark.parametrize("bias", [True, False])
def test_the_solution_is_that_of_least_squares_over_all_rows(bias: bool) -> None:
    """However the probes come in pieces, and with what enters the target unlike what entered the source."""
    source, target = adapter("conv", hidden=5, bias=True), adapter("conv", hidden=3, bias=bias)
    params, reached, original = used(source), features(30), features(30, seed=4)
    start = used(target, seed=9)
    pieces = [Features(reached, original=original, start=start)]
    pieces.append(Features(start=start))
    object.__setattr__(
        pieces[1], "pieces", [Entering(reached[:, at], original[:, at]) for at in (slice(0, 7), slice(7, 30))]
    )
    together, in_pieces = (refit(source, target, params, piece, ridge=0.0) for piece in pieces)
    source_module, target_module = source.module(), target.module()
    for model in range(2):
        source_module.load_state_dict({name: tensor[model] for name, tensor in params.items()})
        target_module.load_state_dict({name: tensor[model] for name, tensor in start.items()})
        with torch.no_grad():
            wanted = source_module.branch(original[model]) + original[model] - reached[model]
            [(read, due)] = rows(target_module.conv2, target_module.features(reached[model])[None], wanted[None])
        read = torch.cat([read, torch.ones_like(read[..., :1])], dim=2) if bias else read
        expected = torch.linalg.lstsq(read[0].double(), due[0].double()).solution
        for blocks in (together, in_pieces):
            columns = [
                blocks["conv2.weight"][model].flatten(1).T,
                *([blocks["conv2.bias"][model][None]] if bias else []),
            ]
            torch.testing.assert_close(torch.cat(columns).double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "options"), [("mlp", {"hidden": 12}), ("attention", {}), ("conv", {"hidden": 2})])
def test_blocks_of_another_family_are_improved_from_where_they_start(name: str, options: dict[str, Any]) -> None:
    source, target = adapter("basic_block"), adapter(name, **options)
    params, start = used(source), used(target, seed=5)
    written = refit(source, target, params, Features(features(), start=start))
    solved = {t.layer for t in target.readers()}
    assert all(torch.equal(written[n], start[n]) for n in start if n.rpartition(".")[0] not in solved)
    error_before, error_after = (error(source, params, target, block, features()) for block in (start, written))
    assert error_after < error_before


def test_channels_that_a_normalisation_shut_are_opened_where_something_should_leave_them() -> None:
    source, target = adapter("basic_block"), adapter("basic_block", hidden=3)
    params = used(source)
    params["bn2.weight"][:, 1] = 0.0
    reached, original = features(), features() + 0.1
    shut = refit(source, target, params, Features(reached, original=original))
    expected = block_stacked(source)(params, original)
    output = block_stacked(target)(shut, reached)
    assert shut["bn2.weight"][:, 1].abs().min() > 0 and output.isfinite().all()
    assert mse_loss(output[:, :, 1], expected[:, :, 1]) < mse_loss(reached[:, :, 1].relu(), expected[:, :, 1])


def test_a_strong_ridge_leaves_the_sources_weights() -> None:
    source, target = adapter("conv", hidden=5), adapter("conv", hidden=3)
    params = used(source)
    written = refit(source, target, params, Features(features()), ridge=1e9)
    retained = [
        i
        for i in range(5)
        for j in range(3)
        if torch.equal(params["conv1.weight"][0, i], written["conv1.weight"][0, j])
    ]
    torch.testing.assert_close(written["conv2.weight"][0], params["conv2.weight"][0][:, retained])


def test_the_ridge_is_chosen_by_the_half_it_was_not_fitted_on() -> None:
    generator, halves = torch.Generator().manual_seed(0), Halves()
    layer = nn.Linear(40, 1)
    read = torch.randn(1, 30, 40, generator=generator)
    start = 0.3 * torch.randn(1, 40, 1, generator=generator, dtype=torch.float64)
    halves.add(layer, read, read @ start.float() + torch.randn(1, 30, 1, generator=generator))
    assert halves.ridge(plain, start).item() == 100.0
    exact = Halves()
    read = torch.randn(1, 200, 40, generator=generator)
    exact.add(layer, read, read @ -start.float())
    assert exact.ridge(plain, start).item() <= 1e-4


def test_a_target_without_a_layer_to_solve_for_is_refused() -> None:
    class Pointwise(BlockAdapter):
        def module(self) -> nn.Module:
            return nn.Conv2d(CHANNELS, CHANNELS, 1)

    with pytest.raises(SpecMismatch, match="names no layer that reads hidden units"):
        REGISTRY.create(
            "translator", "refit", adapter("conv", hidden=3), Pointwise(Pointwise.Options(channels=CHANNELS))
        )


def test_probes_that_are_none_are_refused() -> None:
    with pytest.raises(SpecMismatch, match="at least one"):
        refit(adapter("conv", hidden=3), adapter("conv", hidden=2), used(adapter("conv", hidden=3)), Features())


def test_the_constant_counts_where_the_ridge_is_chosen() -> None:
    """Of two rows, a constant fitted to each is wrong for the other: the strongest pull is chosen."""
    generator, halves = torch.Generator().manual_seed(0), Halves()
    read, weights = torch.rand(2, 20, generator=generator), torch.randn(20, 3, generator=generator)
    for half in range(2):
        halves.add_rows(half, read[half : half + 1], (read @ weights)[half : half + 1] + 10.0 * (-1) ** half)
    start = torch.cat([weights, torch.zeros(1, 3)])[None].double()
    strength = halves.ridge(whole, start)
    assert strength.item() == 100.0


def test_one_row_alone_leaves_weights_and_constant_nearly_as_they_are() -> None:
    generator, halves = torch.Generator().manual_seed(0), Halves()
    read = torch.rand(1, 20, generator=generator)
    halves.add_rows(0, read, torch.full((1, 3), 5.0))
    start = torch.randn(1, 21, 3, generator=generator).double()
    solved = halves.total().ridge(start, halves.ridge(whole, start))
    with_constant = torch.cat([read, torch.ones(1, 1)], dim=1).double()
    # Every value with a ridge of ten for each: of what is missing, one part in eleven is made up for.
    torch.testing.assert_close(
        with_constant @ (solved - start)[0], (5.0 - with_constant @ start[0]) / 11, rtol=1e-3, atol=0
    )


def test_with_few_examples_units_are_chosen_by_their_weights_with_many_by_what_they_do() -> None:
    """The strongest unit by its weights is silent; only many examples show it, two disagree too much."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.ones(1, 4, 1).double()
    weights[0, 0] = 3.0
    strengths = weights[..., 0]

    def chosen(count: int) -> list[int]:
        halves = Halves()
        read = torch.randn(count, 4, generator=generator) * torch.tensor([0.01, 3.0, 2.0, 1.0])
        for half in range(2):
            half_rows = read[half::2]
            halves.add_rows(half, half_rows, half_rows @ weights[0].float())
        doubt = disagreement(plain, halves, weights, count)
        return by_elimination(shrunk(halves.total().plain(), weights, strengths, doubt), 4, 1)[0].tolist()  # type: ignore[no-any-return]

    assert chosen(2) == [0] and chosen(400) == [1]
