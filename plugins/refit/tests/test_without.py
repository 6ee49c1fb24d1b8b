"""Closed forms without probes: what they keep, what they merge, and where that changes nothing."""

from __future__ import annotations

import pytest
import torch
from paramtrans_refit.without import clusters
from torch import Tensor

from paramtrans import BlockAdapter, components
from paramtrans.api.modules import initial
from paramtrans.api.stacking import Params
from paramtrans.backends.vmap import block_stacked
from paramtrans.errors import SpecMismatch

MODELS = 3


def adapter(name: str, **options: object) -> BlockAdapter:
    created: BlockAdapter = components().create("block_adapter", name, channels=4, **options)
    return created


WIDE, NARROW = adapter("conv", hidden=6, bias=True), adapter("conv", hidden=3, bias=True)


def translate(name: str, params: Params, source: BlockAdapter = WIDE, target: BlockAdapter = NARROW) -> Params:
    written: Params = components().create("translator", name, source, target).translate(params)
    return written


def outputs(adapter: BlockAdapter, params: Params) -> Tensor:
    inputs = torch.randn(MODELS, 5, 4, 6, 6, generator=torch.Generator().manual_seed(1))
    return block_stacked(adapter)(params, inputs)


def test_pruning_keeps_the_units_that_do_something() -> None:
    params = initial(WIDE.module, range(MODELS))
    for model, idle in enumerate([(0, 1, 2), (1, 3, 5), (3, 4, 5)]):
        params["conv2.weight"][model, :, list(idle)] = 0
    torch.testing.assert_close(outputs(NARROW, translate("prune", params)), outputs(WIDE, params))


def test_selection_takes_units_at_even_distances() -> None:
    params = initial(WIDE.module, range(MODELS))
    assert torch.equal(translate("select", params)["conv1.weight"], params["conv1.weight"][:, [0, 2, 4]])


@pytest.mark.parametrize("family", ["conv", "mlp"])
def test_merging_units_that_are_fed_alike_changes_nothing(family: str) -> None:
    """Of six units, each is another one, scaled."""
    extra = {"bias": True} if family == "conv" else {}
    wide, narrow = adapter(family, hidden=6, **extra), adapter(family, hidden=3, **extra)
    params = initial(wide.module, range(MODELS))
    [group] = wide.spec.symmetries
    for member in group.members:
        if member.scale > 0:
            units = params[member.tensor].movedim(member.axis + 1, 1)
            units[:, [3, 4, 5]] = units[:, [1, 2, 0]] * torch.tensor([2.0, 0.5, 3.0]).view(3, *[1] * (units.ndim - 2))
    torch.testing.assert_close(
        outputs(narrow, translate("merge", params, wide, narrow)), outputs(wide, params), rtol=1e-4, atol=1e-5
    )


def test_clusters_are_those_one_sees_and_none_is_empty() -> None:
    generator = torch.Generator().manual_seed(0)
    assigned = torch.tensor([[0, 0, 1, 2, 1, 2, 2]]).expand(4, -1)
    points = 10.0 * torch.eye(3)[assigned] + 0.1 * torch.randn(4, 7, 3, generator=generator)
    share = clusters(points, torch.ones(4, 7), 3, rounds=10)
    together = share.mT @ share
    assert torch.equal(together, (assigned[:, :, None] == assigned[:, None]).float())
    assigned = clusters(torch.zeros(2, 5, 3), torch.ones(2, 5), 3, rounds=5)
    assert (assigned.sum(2) > 0).all() and (assigned.sum(1) == 1).all()


@pytest.mark.parametrize("name", ["prune", "select", "merge"])
def test_another_family_is_refused_at_once(name: str) -> None:
    with pytest.raises(SpecMismatch, match="own family"):
        components().create("translator", name, WIDE, adapter("attention"))


@pytest.mark.parametrize("name", ["prune", "select", "merge"])
def test_a_folded_source_becomes_a_target_without_biases(name: str) -> None:
    source, target = adapter("basic_block"), adapter("conv", hidden=2)
    written = translate(name, initial(source.module, range(MODELS)), source, target)
    assert {key: tuple(t.shape[1:]) for key, t in written.items()} == {t.name: t.shape for t in target.spec.tensors}
