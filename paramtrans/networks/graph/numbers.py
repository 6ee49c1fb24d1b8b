"""Numbers that a network's code reads: attributes of its modules, and arguments of operations in captured programs.

A captured program (`torch.fx.GraphModule`, as `torch.export` gives it) has no other code than its operations. Such a
number is called by the operation and its place among the arguments: `view_3.1.2`, `conv2d.6`, `full.kwarg.0`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule, Node

Number = int | tuple[int, ...]


def numbers_of(module: nn.Module) -> dict[str, Number]:
    """The numbers of one module, and tuples of numbers, by name."""
    if isinstance(module, GraphModule):
        return {f"{node.name}.{place}": value for node in module.graph.nodes for place, value in arguments_of(node)}
    return {name: value for name, value in vars(module).items() if _is_number(value)}


def has_tensors(module: nn.Module) -> bool:
    """Whether a module has parameters or buffers of its own."""
    return any(tensor is not None for tensor in (*module._parameters.values(), *module._buffers.values()))


def arguments_of(node: Node) -> Iterator[tuple[str, int]]:
    """The numbers among an operation's arguments, each with its place."""
    if node.op == "call_function":
        for place, argument in (*enumerate(node.args), *node.kwargs.items()):
            if type(argument) is int:
                yield str(place), argument
            elif isinstance(argument, list | tuple):
                yield from ((f"{place}.{i}", item) for i, item in enumerate(argument) if type(item) is int)


def set_number(module: nn.Module, name: str, value: Number) -> None:
    """Set one of the numbers of a module. A program is compiled anew by `recompile`, not here.

    Args:
        module: Is changed.
        name: As `numbers_of` gives it.
        value: What it becomes.
    """
    if not isinstance(module, GraphModule):
        setattr(module, name, value)
        return
    operation, place, *index = name.split(".")
    node = next(node for node in module.graph.nodes if node.name == operation)
    argument = node.args[int(place)] if place.isdigit() else node.kwargs[place]
    changed: Any = value
    if index:
        assert isinstance(argument, list | tuple)
        changed = [value if i == int(index[0]) else item for i, item in enumerate(argument)]
    if place.isdigit():
        node.update_arg(int(place), changed)
    else:
        node.update_kwarg(place, changed)


def recompile(network: nn.Module) -> None:
    """Compile all programs in a network whose numbers were set."""
    for module in network.modules():
        if isinstance(module, GraphModule):
            module.recompile()


@torch.no_grad()
def uncount(before: nn.Module, passed: nn.Module, after: nn.Module) -> None:
    """Set numbers and buffers that code changes in each pass to what they were; the passes on the way are no user's.

    Args:
        before: The network as it was.
        passed: A copy that nothing but passes changed.
        after: The smaller one, which is changed. Buffers that became smaller stay.
    """
    modules_passed, modules_after = dict(passed.named_modules()), dict(after.named_modules())
    for path, module in before.named_modules():
        if path not in modules_passed or path not in modules_after:
            continue
        counted, counted_after = modules_passed[path], modules_after[path]
        numbers, numbers_after = numbers_of(counted), numbers_of(counted_after)
        for name, value in numbers_of(module).items():
            if numbers.get(name, value) != value and type(numbers_after.get(name)) is type(value):
                set_number(counted_after, name, value)
        for name, tensor in module._buffers.items():
            tensor_passed, tensor_after = counted._buffers.get(name), counted_after._buffers.get(name)
            if tensor is None or tensor_passed is None or tensor_after is None:
                continue
            if tensor_passed.shape == tensor_after.shape == tensor.shape and not torch.equal(tensor_passed, tensor):
                tensor_after.copy_(tensor)


def _is_number(value: Any) -> bool:
    return type(value) is int or (isinstance(value, tuple) and all(type(item) is int for item in value))
