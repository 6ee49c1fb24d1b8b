"""Several blocks in one host, translated together."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from paramtrans import BlockAdapter, SpecMismatch
from paramtrans.api.modules import initial
from paramtrans.api.stacking import join
from paramtrans.backends.vmap import Vmap
from paramtrans.plugins import components

RESIDUAL = {"name": "basic_block", "channels": 4}
STRIDED = {
    "name": "conv_chain",
    "channels": 4,
    "out": 6,
    "hidden": [5],
    "steps": [{"stride": 2}, {"activation": "none"}],
    "skip": "projection",
    "skip_stride": 2,
}


def sequence(*blocks: dict[str, Any]) -> BlockAdapter:
    made: BlockAdapter = components().create("block_adapter", "sequence", channels=4, blocks=list(blocks))
    return made


def test_each_block_reads_what_the_one_before_it_gives() -> None:
    whole, parts = sequence(RESIDUAL, STRIDED), [components().create("block_adapter", **b) for b in (RESIDUAL, STRIDED)]
    params = [initial(part.module, [0, 1]) for part in parts]
    inputs = torch.randn(2, 3, 4, 8, 6, generator=torch.Generator().manual_seed(0))
    wanted = inputs
    for part, own_params in zip(parts, params, strict=True):
        wanted = Vmap(part.module())(own_params, wanted)
    given = Vmap(whole.module())(join({"0": params[0], "1": params[1]}), inputs)
    assert given.shape == (2, 3, 6, 4, 3) and torch.equal(given, wanted)


def test_all_units_are_declared_under_the_number_of_their_block() -> None:
    groups = {group.name: group.size for group in sequence(RESIDUAL, STRIDED).spec.symmetries}
    assert groups == {"0_hidden": 4, "1_hidden1": 5}
    smaller = sequence(RESIDUAL, STRIDED).with_sizes({"1_hidden1": 2})
    assert {group.name: group.size for group in smaller.spec.symmetries} == {"0_hidden": 4, "1_hidden1": 2}
    again = components().create("block_adapter", "sequence", **smaller.options.model_dump())
    assert again.spec == smaller.spec


def test_channels_that_go_through_all_blocks_are_one_stream() -> None:
    through = sequence(RESIDUAL, {"name": "conv", "channels": 4, "hidden": 2})
    assert {member.tensor.partition(".")[0] for member in through.spec.stream} == {"0", "1"}
    assert sequence(RESIDUAL, STRIDED).spec.stream == ()


def test_translators_of_blocks_translate_all_of_them_at_once() -> None:
    source, target = sequence(RESIDUAL, STRIDED), sequence({**RESIDUAL, "hidden": 2}, {**STRIDED, "hidden": [3]})
    translator = components().create("translator", "prune", source, target)
    written = translator.translate(initial(source.module, [0, 1]))
    assert {name: tuple(t.shape[1:]) for name, t in written.items()} == {t.name: t.shape for t in target.spec.tensors}


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        ([{"channels": 4}], r"blocks\.0: has no name"),
        ([{"name": "conv", "channels": 5, "hidden": 2}], "channels: is 4, the first block has 5"),
        ([RESIDUAL, {"name": "linear_chain", "channels": 4, "hidden": [2]}], "channels in another axis"),
        ([{"name": "conv", "channels": 4, "hiden": 2}], r'blocks\.0: .*hiden: unknown option; did you mean "hidden"'),
    ],
)
def test_blocks_that_do_not_fit_are_told(blocks: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(SpecMismatch, match=said):
        sequence(*blocks)


def test_a_learned_translator_begins_at_the_strongest_units_of_each_block() -> None:
    first = {"name": "conv_chain", "channels": 4, "hidden": [5]}
    source = sequence(first, STRIDED)
    target = sequence({**first, "hidden": [2]}, {**STRIDED, "hidden": [3]})
    params = initial(source.module, [0, 1])
    learned = components().create("translator", "equivariant", source, target, width=8, heads=2, layers=1)
    written = learned.translate(params)
    for number, (block, of_source) in enumerate(((2, 5), (3, 5))):
        kept, rows = (blocks[f"{number}.conv1.weight"].flatten(2) for blocks in (written, params))
        assert (kept.shape[1], rows.shape[1]) == (block, of_source)
        nearest = torch.cdist(kept, rows)
        assert nearest.amin(2).max() < 1e-5 and all(len(set(places)) == block for places in nearest.argmin(2).tolist())
