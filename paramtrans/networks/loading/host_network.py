"""A host as an ordinary network: former, block and latter, to build, train, save, load and translate like any other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from torch import Tensor, nn

from paramtrans.api.adapter import BlockAdapter, check_fit
from paramtrans.api.hosts import Hosts
from paramtrans.api.modules import tensor_specs
from paramtrans.api.stacking import Params
from paramtrans.api.task import Task
from paramtrans.backends.host_runner import HostRunner
from paramtrans.errors import ConfigError
from paramtrans.plugins.registry import Registry

BLOCK_OPTION = "block."
"""What options of the block begin with, beside those of the task."""


class HostNetwork(nn.Module):
    """The former and latter blocks of a task with a block of some adapter between them, freshly initialised.

    `[batch, *input]` → `[batch, outputs]`, inputs as `task.to_input` gives them. Raises `SpecMismatch` where the block
    does not fit the task's slot.

    >>> from paramtrans.plugins import components
    >>> task = components().create("task", "mnist")
    >>> network = HostNetwork(task, components().create("block_adapter", "basic_block", channels=6))
    >>> [name for name, _ in network.named_children()]
    ['former', 'block', 'latter']
    """

    def __init__(self, task: Task, block: BlockAdapter) -> None:
        check_fit("block", block, task.slot)
        super().__init__()
        # Without the data that it may hold, so that copies of a network do not carry any.
        self.task = type(task)(task.options)
        self.former, self.block, self.latter = task.former(), block.module(), task.latter()

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.latter(self.block(self.former(x)))
        return outputs

    def hosts(self, source: Params) -> Hosts:
        """This network as a stack of one host whose source block is `source`, in float32."""
        former, latter = (_float(_stacked(part)) for part in (self.former, self.latter))
        return Hosts(former, _float(source), latter, stream=self.task.stream())

    def runner(self, source: BlockAdapter, target: BlockAdapter) -> HostRunner:
        """What runs its parts, stacked, with these blocks in its slot."""
        return HostRunner(self.task, source, target)


def host_network(task: str, block: str, options: Mapping[str, Any], registry: Registry) -> HostNetwork:
    """A fresh host by the names of its task and of its block's adapter; options are those of the task, and behind
    `block.` those of the block, whose channels are the slot's. Raises `ConfigError` or `UnknownName`."""
    own = {name: value for name, value in options.items() if not name.startswith(BLOCK_OPTION)}
    given = {name.removeprefix(BLOCK_OPTION): value for name, value in options.items() if name not in own}
    if "channels" in given:
        raise ConfigError([f"{BLOCK_OPTION}channels: a block has the channels of its task's slot; leave it out"])
    made = registry.create("task", task, **own)
    adapter = registry.create("block_adapter", block, channels=made.slot.channels, **given)
    return HostNetwork(made, adapter)


def architecture(task: Mapping[str, Any], block: Mapping[str, Any], registry: Registry) -> str:
    """What `--arch` says for such hosts; `task` and `block` are records with a name and options, as zoos keep them."""
    options: dict[str, Any] = {}
    for kind, part, begin in (("task", task, ""), ("block_adapter", block, BLOCK_OPTION)):
        given = {name: value for name, value in part.items() if name != "name"}
        made = registry.create(kind, part["name"], **given).options.model_dump(mode="json", exclude_defaults=True)
        options |= {f"{begin}{name}": json.dumps(value) for name, value in made.items()}
    options.pop(f"{BLOCK_OPTION}channels", None)
    return f"task:{task['name']}:{block['name']}" + (f"?{urlencode(options)}" if options else "")


def _stacked(module: nn.Module) -> Params:
    """A module's tensors, without counters, as a stack of one model."""
    state = module.state_dict()
    return {spec.name: state[spec.name].detach()[None] for spec in tensor_specs(module)}


def _float(params: Params) -> Params:
    return {name: tensor.float() for name, tensor in params.items()}
