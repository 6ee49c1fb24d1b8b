"""Networks inside what trains them or makes them faster: several devices, compiled, scripted and exported modules."""

from __future__ import annotations

import copy
import logging

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from paramtrans.errors import SpecMismatch
from paramtrans.networks.forward.programs import unguarded

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
    """
    computed = [value for module in network.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    kept = {id(parameter): parameter for parameter in network.parameters()} if share else {}
    return copy.deepcopy(network, {**{id(tensor): tensor.detach().clone() for tensor in computed}, **kept}).eval()
