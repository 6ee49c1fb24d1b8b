"""Captured programs as networks: `torch.fx.GraphModule`, as `torch.export` gives them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from paramtrans.errors import DataError

GUARDS = "_guards_fn"
"""What `ExportedProgram.module()` calls its check of inputs."""
ARTEFACT = 2
"""The least length of every free axis, as `torch.export` says it; shorter ones mostly do."""
ENDLESS = 2**31
"""No length of an axis."""

Limits = tuple[tuple[int, int, int | None], ...]
"""Axes of an input with the least and the largest length of each; None where there is no largest."""


def run_quietly(network: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """What a network gives. A captured program that fails prints nothing, as it does where it is called itself."""
    if isinstance(network, GraphModule):
        return nn.Module.__call__(network, *args, **kwargs)
    return network(*args, **kwargs)


def fixed_size(network: nn.Module) -> int | None:
    """The number of examples that a captured program takes, where it was exported for that number alone.

    Args:
        network: Any; only captured programs say so.
    """
    if not isinstance(network, GraphModule):
        return None
    values = [node.meta.get("val") for node in network.graph.find_nodes(op="placeholder")]
    sizes = [value.shape[0] for value in values if isinstance(value, Tensor) and value.ndim]
    fixed = bool(sizes) and all(type(size) is int for size in sizes)  # free ones are of another class
    return sizes[0] if fixed and len({*sizes}) == 1 else None


def size_hint(network: nn.Module) -> str:
    """What to say of the batches that a network takes, behind another message; empty where it takes any."""
    size = fixed_size(network)
    return (
        "" if size is None else f"; this program was exported for batches of {size}, not for any number (a free axis)"
    )


def unguarded(program: GraphModule) -> GraphModule:
    """What `ExportedProgram.module()` gives, with the same parameters, as an ordinary module.

    Of its check of inputs, which holds numbers that fit the untouched program alone, the sizes of these stay. It has
    both modes; what it computes is that of the mode in which it was exported.
    """
    plain = copy.deepcopy(program, {id(t): t for t in (*program.parameters(), *program.buffers())})
    for node in plain.graph.find_nodes(op="call_module", target=GUARDS):
        plain.graph.erase_node(node)
    if hasattr(plain, GUARDS):
        delattr(plain, GUARDS)
    for mode in ("train", "eval"):
        vars(plain).pop(mode, None)  # they raise
    plain._forward_pre_hooks.clear()
    for node, origin in zip(*(p.graph.find_nodes(op="placeholder") for p in (plain, program)), strict=True):
        if isinstance(value := origin.meta.get("val"), Tensor):
            limit(node, [_bounds(size) for size in value.shape])
    plain.recompile()
    plain.training = False
    return plain


def _bounds(size: int | torch.SymInt) -> tuple[int, int]:
    """The least and the largest length of an axis that a program was followed with."""
    if isinstance(size, int):
        return size, size
    bounds = size.node.shape_env.bound_sympy(size.node.expr)  # type: ignore[union-attr]
    return int(bounds.lower), int(bounds.upper) if bounds.upper.is_Integer else ENDLESS


def limit(placeholder: Node, bounds: Sequence[tuple[int, int]]) -> None:
    """Let a program check the sizes of an input, as it would compute something else of others without a word.

    Args:
        placeholder: The input; its program is compiled again afterwards.
        bounds: The least and the largest length of each axis. Of examples, which hardly any operation counts, a program
            that was followed with one number takes others too.
    """
    limits: Limits = tuple(
        (axis, least if least > ARTEFACT or least == most else 0, most if most < ENDLESS else None)
        for axis, (least, most) in enumerate(bounds)
        if (least > ARTEFACT or most < ENDLESS) and (axis or least < most)
    )
    if limits:
        graph = placeholder.graph
        last = graph.find_nodes(op="placeholder")[-1]
        with graph.inserting_after(last):
            graph.call_function(check_sizes, (placeholder, placeholder.name, limits))


def check_sizes(value: Tensor, name: str, limits: Limits) -> None:
    """Raise `DataError` where an input of a captured program has a size that this was not followed with.

    Args:
        value: The input.
        name: Of the input.
        limits: Of its axes.
    """
    for axis, least, most in limits:
        if axis < value.ndim and (value.shape[axis] < least or (most is not None and value.shape[axis] > most)):
            raise DataError(
                f"{name}: axis {axis} has length {value.shape[axis]}; this program was captured for "
                f"{in_words(least, most)}, and may compute something else of others"
            )


def in_words(least: int, most: int | None) -> str:
    """The lengths that an axis may have."""
    if least == most:
        return f"{least} alone"
    return f"{least} and more" if most is None else f"{least} to {most}" if least else f"{most} at most"


def size_limits(network: nn.Module) -> dict[str, Limits]:
    """What the inputs of a captured program are held to, by their names.

    Args:
        network: Any; only captured programs have such limits.
    """
    graph = network.graph if isinstance(network, GraphModule) else torch.fx.Graph()
    checks = graph.find_nodes(op="call_function", target=check_sizes)
    return {str(node.args[1]): node.args[2] for node in checks}
