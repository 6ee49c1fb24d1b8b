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
"""The prefix of options of the block; options without it are those of the task."""


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
        check_fit("block", block, task.slot, task.leaving())
        super().__init__()
        # Without the data that it may hold, so that copies of a network do not carry any.
        self.task = type(task)(task.options)
        self.former, self.block, self.latter = task.former(), block.module(), task.latter()

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, *input]` → `[batch, outputs]`.

        Args:
            x: A batch, `[batch, *input]`.

        Returns:
            `[batch, outputs]`.
        """
        outputs: Tensor = self.latter(self.block(self.former(x)))
        return outputs

    def hosts(self, source: Params) -> Hosts:
        """This network as a stack of one host, in float32.

        Args:
            source: Tensors of its source block, `[1, ...]` each.

        Returns:
            A stack of one.
        """
        former, latter = (_float(_stacked(part)) for part in (self.former, self.latter))
        return Hosts(former, _float(source), latter, stream=self.task.stream())

    def runner(self, source: BlockAdapter, target: BlockAdapter) -> HostRunner:
        """Runs former, block and latter as stacks, with these blocks in the slot.

        Args:
            source: The source block.
            target: The target block.

        Returns:
            What runs them.
        """
        return HostRunner(self.task, source, target)


def host_network(task: str, block: str, options: Mapping[str, Any], registry: Registry) -> HostNetwork:
    """A fresh host by the names of its task and of its block's adapter.

    Args:
        task: Name of the task.
        block: Name of the adapter; the block has the channels of the task's slot.
        options: Of the task; behind `block.`, of the block.
        registry: The plugins that both come from.

    Raises:
        ConfigError: an option is wrong.
        UnknownName: there is no such task or block.
    """
    task_options = {name: value for name, value in options.items() if not name.startswith(BLOCK_OPTION)}
    block_options = {
        name.removeprefix(BLOCK_OPTION): value for name, value in options.items() if name not in task_options
    }
    if "channels" in block_options:
        raise ConfigError([f"{BLOCK_OPTION}channels: a block has the channels of its task's slot; leave it out"])
    created_task = registry.create("task", task, **task_options)
    adapter = registry.create("block_adapter", block, channels=created_task.slot.channels, **block_options)
    return HostNetwork(created_task, adapter)


def architecture(task: Mapping[str, Any], block: Mapping[str, Any], registry: Registry) -> str:
    """What `--arch` says for the hosts of a zoo.

    Args:
        task: Record of the task: its name and options, as zoos keep them.
        block: Record of the block.
        registry: The plugins that both come from.
    """
    options: dict[str, Any] = {}
    for kind, component, prefix in (("task", task, ""), ("block_adapter", block, BLOCK_OPTION)):
        given_options = {name: value for name, value in component.items() if name != "name"}
        set_options = registry.create(kind, component["name"], **given_options).options.model_dump(
            mode="json", exclude_defaults=True
        )
        options |= {f"{prefix}{name}": json.dumps(value) for name, value in set_options.items()}
    options.pop(f"{BLOCK_OPTION}channels", None)
    return f"task:{task['name']}:{block['name']}" + (f"?{urlencode(options)}" if options else "")


def _stacked(module: nn.Module) -> Params:
    """A module's tensors, without counters, as a stack of one model."""
    state = module.state_dict()
    return {spec.name: state[spec.name].detach()[None] for spec in tensor_specs(module)}


def _float(params: Params) -> Params:
    return {name: tensor.float() for name, tensor in params.items()}
