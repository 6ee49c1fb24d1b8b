"""Blocks to start matching from: whole, and without dead hidden units."""

from __future__ import annotations

import torch
from torch import Tensor

from paramtrans.api.adapter import BlockAdapter
from paramtrans.api.context import Context
from paramtrans.api.modules import initial
from paramtrans.api.specs import Reader
from paramtrans.api.stacking import Params
from paramtrans.evaluation.diagnosis import silent
from paramtrans.utils import seeds


def fresh(target: BlockAdapter, context: Context, count: int) -> Params:
    """Blocks as PyTorch initialises them, each from the seed of its host, whatever others are in the stack.

    Args:
        target: The adapter of the blocks.
        context: Its hosts and its seed.
        count: How many blocks, where there are no hosts.
    """
    hosts = context.hosts.seeds if context.hosts is not None else ()
    return initial(target.module, [seeds.derive(context.seed, "matching", host) for host in hosts or range(count)])


def revive_dead_units(target: BlockAdapter, params: Params, entering: Tensor, context: Context) -> Params:
    """The same blocks, with new weights for dead hidden units: those that give zero for all that enters.

    A dead unit before a ReLU gets no gradient, and would stay dead.

    Args:
        target: The adapter of the blocks.
        params: Its tensors, `[models, ...]`.
        entering: What enters the blocks, `[models, n, *slot]`.
        context: Its hosts and its seed.
    """
    group = None if target.readout is None else target.units(Reader(target.readout))
    if group is None:
        return params
    revived = {name: tensor.to(entering.device) for name, tensor in fresh(target, context, len(entering)).items()}
    for sign in (1, -1):  # where a new unit is silent too, its opposite is not
        is_silent = silent(target, params, entering)
        if is_silent is None or not is_silent.any():
            break
        for member in group.members:
            if member.scale > 0:
                tensor = params[member.tensor]
                shape = [len(tensor), *(-1 if axis == member.axis else 1 for axis in range(tensor.ndim - 1))]
                mixed = torch.where(is_silent.view(shape), sign * revived[member.tensor], tensor)
                params = {**params, member.tensor: mixed}
    return params
