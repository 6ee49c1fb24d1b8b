"""Hosts run part by part, or in one piece where one layout runs all of them."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from paramtrans.api.hosts import Hosts
from paramtrans.api.modules import initial, tensor_specs
from paramtrans.api.specs import TensorSpec
from paramtrans.api.stacking import split
from paramtrans.backends.vmap import Vmap, block_stacked, stacked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paramtrans.api.adapter import BlockAdapter
    from paramtrans.api.runner import Stacked
    from paramtrans.api.stacking import Params
    from paramtrans.api.task import Task
    from paramtrans.backends.vmap import Fastest


class Chain:
    """Former, block and latter run one after the other, each in its own fastest layout."""

    def __init__(self, parts: dict[str, Stacked], frozen: frozenset[str] = frozenset()) -> None:
        self.parts, self.frozen = parts, frozen

    def __call__(self, params: Params, inputs: Tensor, training: bool = False) -> Tensor:
        """The `frozen` parts are never in training."""
        for name, part in self.parts.items():
            inputs = part(split(params, name), inputs, training and name not in self.frozen)
        return inputs


class OwnFlags:
    """A module in which each layer trains or not by its own flag, whatever `training` says."""

    def __init__(self, run: Fastest | Vmap) -> None:
        self.run = run

    def __call__(self, params: Params, inputs: Tensor, training: bool = False) -> Tensor:
        return self.run(params, inputs, None)


def network(task: Task, block: BlockAdapter) -> nn.Sequential:
    """A whole host with `block` in its slot: children `former`, `block`, `latter`."""
    return nn.Sequential(OrderedDict(former=task.former(), block=block.module(), latter=task.latter()))


def network_specs(task: Task, block: BlockAdapter) -> tuple[TensorSpec, ...]:
    """The tensors of a whole host with `block` in its slot."""
    with torch.device("meta"):
        return tensor_specs(network(task, block))


def untrained(task: Task, block: BlockAdapter, seeds: Sequence[int]) -> Hosts:
    """Fresh hosts with `block` as source, one from each seed."""
    return Hosts.from_network(initial(lambda: network(task, block), seeds), seeds=seeds, stream=task.stream())


class HostRunner:
    """The `Runner` of one task and two blocks, each part in its own fastest layout."""

    def __init__(self, task: Task, source: BlockAdapter, target: BlockAdapter) -> None:
        self.task, self.target_spec = task, target.spec
        # Modules are built for their architecture alone; the numbers they are initialised with must not cost the
        # caller any of his.
        with torch.random.fork_rng(devices=[]):
            self.former: Stacked = stacked(task.former())
            self.source: Stacked = block_stacked(source)
            self.target: Stacked = block_stacked(target)
            self.latter: Stacked = stacked(task.latter())
            self._whole = [(self.source, network_stacked(task, source)), (self.target, network_stacked(task, target))]

    def in_one_piece(self, block: Stacked) -> Stacked | None:
        """Whole hosts with the source or target block, where one layout runs all of them; else None."""
        return next((whole for stack, whole in self._whole if stack is block and not isinstance(whole, Chain)), None)


def network_stacked(
    task: Task, block: BlockAdapter, frozen: frozenset[str] = frozenset(), entered: bool = False
) -> Stacked:
    """Whole hosts, in one piece where a fast layout runs all of them; the `frozen` parts are never in training.

    `entered`: without former, so that inputs are the features that enter the slot.
    """
    module = network(task, block)
    module = module[1:] if entered else module
    whole = stacked(module)
    if block.stacked() or isinstance(whole, Vmap):
        parts = {"former": stacked(task.former()), "block": block_stacked(block), "latter": stacked(task.latter())}
        return Chain({name: part for name, part in parts.items() if name in dict(module.named_children())}, frozen)
    for name, part in module.named_children():
        part.train(name not in frozen)
    return OwnFlags(whole) if frozen else whole
