"""Captured programs as networks: `torch.fx.GraphModule`, as `torch.export` gives them."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn
from torch.fx import GraphModule

GUARDS = "_guards_fn"
"""What `ExportedProgram.module()` calls its check of inputs."""


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

    It checks no inputs, as the check holds numbers that fit the untouched program alone, and it has both modes; what it
    computes is that of the mode in which it was exported.
    """
    plain = copy.deepcopy(program, {id(t): t for t in (*program.parameters(), *program.buffers())})
    for node in plain.graph.find_nodes(op="call_module", target=GUARDS):
        plain.graph.erase_node(node)
    if hasattr(plain, GUARDS):
        delattr(plain, GUARDS)
    for mode in ("train", "eval"):
        vars(plain).pop(mode, None)  # they raise
    plain._forward_pre_hooks.clear()
    plain.recompile()
    plain.training = False
    return plain
