"""Stacked parameters and hosts: picking, joining, splitting, and checking shapes."""

from __future__ import annotations

import pytest
import torch

from paramtrans.api import stacking as stacks
from paramtrans.api.hosts import Hosts, in_hosts, in_network
from paramtrans.api.specs import BlockSpec, TensorSpec
from paramtrans.errors import SpecMismatch

SPEC = BlockSpec((TensorSpec("w", (2, 3)), TensorSpec("b", (2,))))


def params(models: int = 4) -> stacks.Params:
    return {"w": torch.arange(models * 6.0).view(models, 2, 3), "b": torch.arange(models * 2.0).view(models, 2)}


def hosts(models: int = 4, target: bool = True) -> Hosts:
    part = params(models)
    seeds = tuple(100 + i for i in range(models))
    return Hosts(part, dict(part), {"0.w": part["w"]}, dict(part) if target else None, seeds)


def same(first: stacks.Params, second: stacks.Params) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("index", [[2, 0], torch.tensor([2, 0]), slice(0, 3, 2), slice(None, None, -1), [1, 1], []])
def test_pick_takes_every_part_and_the_seeds_in_the_given_order(index) -> None:
    order = list(range(4))[index] if isinstance(index, slice) else [int(i) for i in index]
    picked = hosts().pick(index)
    assert len(picked) == len(order)
    assert picked.seeds == tuple(100 + i for i in order)
    assert same(picked.source, {name: tensor[order] for name, tensor in params().items()})
    assert set(picked.parts()) == {"former", "source", "latter", "target"}
    assert torch.equal(picked.latter["0.w"], params()["w"][order])


@pytest.mark.parametrize("block", ["block", "source"])
def test_hosts_come_from_networks_and_from_files_of_hosts(block: str) -> None:
    whole = stacks.join({"former": params(), block: {"block.w": params()["w"]}, "latter": {}})
    from_networks = Hosts.from_network(whole, params(), range(4), {"former.w": 0})
    assert (
        same(from_networks.former, params())
        and same(from_networks.source, {"block.w": params()["w"]})
        and from_networks.latter == {}
    )
    assert from_networks.target is not None and same(from_networks.target, params())
    assert from_networks.seeds == (0, 1, 2, 3) and from_networks.stream == {"former.w": 0}


@pytest.mark.parametrize(
    ("network", "host"),
    [
        ("block", "source"),
        ("block.block.w", "source.block.w"),
        ("former.block.w", "former.block.w"),
        ("blocks.w", "blocks.w"),
    ],
)
def test_the_block_of_a_network_is_the_source_of_hosts(network: str, host: str) -> None:
    assert (in_hosts(network), in_network(host)) == (host, network)


def test_pick_copies() -> None:
    whole = hosts()
    picked = whole.pick([0, 1])
    picked.source["w"].zero_()
    assert same(whole.source, params())


def test_hosts_without_a_target_stay_without() -> None:
    assert hosts(target=False).pick([0]).target is None
    assert "target" not in hosts(target=False).parts()


def test_moving_keeps_values_and_seeds() -> None:
    moved = hosts().to("cpu")
    assert moved.seeds == hosts().seeds and same(moved.source, params())


def test_models_counts_stacked_models_and_none_without_tensors() -> None:
    assert stacks.models(params(5)) == 5
    assert stacks.models({}) == 0


def test_split_is_the_inverse_of_join() -> None:
    parts = {"former": params(), "formerly": {"x": torch.ones(4)}, "latter": {}}
    joined = stacks.join(parts)
    assert set(joined) == {"former.w", "former.b", "formerly.x"}
    for part, tensors in parts.items():
        assert same(stacks.split(joined, part), tensors)


def test_concatenate_is_the_inverse_of_taking_apart() -> None:
    pieces = [stacks.take(params(), [0]), stacks.take(params(), [1, 2, 3])]
    assert same(stacks.concatenate(pieces), params())


def test_detach_leaves_the_graph_and_shares_memory() -> None:
    leaf = torch.ones(2, requires_grad=True)
    detached = stacks.detach({"w": leaf * 2, "v": leaf})
    assert not detached["w"].requires_grad
    assert detached["v"].data_ptr() == leaf.data_ptr()


def test_what_fits_is_accepted() -> None:
    stacks.check(params(), SPEC, "block")
    stacks.check({}, BlockSpec(()), "block")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"w": None}, ["missing w"]),
        ({"w": None, "b": None}, ["missing b, w"]),
        ({"x": torch.ones(4, 1)}, ["unexpected x"]),
        ({"w": torch.ones(4, 3, 2)}, ["w has shape [4, 3, 2], expected [4, 2, 3]"]),
        ({"w": torch.ones(2, 3)}, ["w has shape [2, 3]"]),
        ({"b": torch.ones(3, 2)}, ["b has shape [3, 2], expected [4, 2]"]),
        ({"b": None, "x": torch.ones(1), "w": torch.ones(4, 2)}, ["missing b", "unexpected x", "w has shape [4, 2]"]),
    ],
)
def test_what_does_not_fit_is_told_in_one_message(change: dict[str, torch.Tensor | None], words: list[str]) -> None:
    stack = {name: tensor for name, tensor in {**params(), **change}.items() if tensor is not None}
    with pytest.raises(SpecMismatch) as caught:
        stacks.check(stack, SPEC, "translator mixer")
    assert str(caught.value).startswith("translator mixer: ")
    assert all(word in str(caught.value) for word in words)
