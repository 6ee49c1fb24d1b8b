"""Networks inside what trains them or makes them faster: several devices, compiled, scripted and exported modules."""

from __future__ import annotations

import copy
import logging
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils._pytree import tree_leaves

from paramtrans.errors import SpecMismatch
from paramtrans.networks.forward.modes import to_eval
from paramtrans.networks.forward.programs import unguarded
from paramtrans.utils.boundary import reason

INSIDE = {"DataParallel": "module", "DistributedDataParallel": "module", "OptimizedModule": "_orig_mod"}
"""Classes of PyTorch's that hold a network, each with where; by name, as to import them takes a while."""

log = logging.getLogger(__name__)


def unwrapped(network: nn.Module) -> nn.Module:
    """The network inside `nn.DataParallel`, `DistributedDataParallel` or `torch.compile`; any other as it is.

    Of an exported program (`ExportedProgram.module()`) it is a copy of the same parameters without its check of inputs.

    Raises:
        SpecMismatch: it is a scripted module, whose code cannot be changed.
    """
    if isinstance(network, torch.jit.ScriptModule):
        raise SpecMismatch("a scripted module (torch.jit) cannot be changed; give the module that it was made of")
    if isinstance(network, GraphModule) and "train" in vars(network):
        return unguarded(network)
    name = next((cls.__name__ for cls in type(network).__mro__ if cls.__module__.startswith("torch.")), "")
    if name not in INSIDE:
        return network
    log.info("the network inside %s is taken; what comes of it is not in one", name)
    inside = getattr(network, INSIDE[name])
    assert isinstance(inside, nn.Module)
    return unwrapped(inside)


def copied(network: nn.Module, share: bool = False) -> nn.Module:
    """A copy in eval mode; of tensors that are computed from others in each pass (`weight_norm`, masks of pruning) with
    what they are now.

    Args:
        network: The network.
        share: Whether the copy has the network's own parameters, as it is never written to.

    Raises:
        SpecMismatch: it holds what cannot be copied, such as locks and open files; the message names it.
    """
    kept = {id(parameter): parameter for parameter in network.parameters()} if share else {}
    try:
        return to_eval(copy.deepcopy(network, {**computed_tensors(network), **kept}))
    except Exception as error:
        raise SpecMismatch(f"{_uncopied(network)} cannot be copied: {reason(error)}; take it out first") from error


def computed_tensors(network: nn.Module) -> dict[int, Any]:
    """For tensors that were computed in a pass and that modules keep, which cannot be copied, their values, by `id`.

    Args:
        network: The network; also lists, tuples and dictionaries among its attributes are looked through.
    """
    kept = [value for module in network.modules() for value in vars(module).values()]
    tensors = [value for value in kept if isinstance(value, Tensor)]
    tensors += [leaf for leaf in tree_leaves(kept) if isinstance(leaf, Tensor) and not leaf.is_leaf]
    return {id(tensor): tensor.detach().clone() for tensor in tensors}


def _uncopied(network: nn.Module) -> str:
    """What of a network cannot be copied, as messages name it."""
    tensors = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    for path, module in reversed([*network.named_modules()]):
        for name, value in vars(module).items():
            try:
                if name != "_modules":
                    copy.deepcopy(value, {**computed_tensors(network), **tensors})
            except Exception:
                return f"{path or 'the network'}: its attribute {name} ({type(value).__name__})"
    return f"this {type(network).__name__}"
