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
    """`count` blocks as PyTorch initialises them, each from the seed of its host, whichever others stand beside it."""
    hosts = context.hosts.seeds if context.hosts is not None else ()
    return initial(target.module, [seeds.derive(context.seed, "matching", each) for each in hosts or range(count)])


def revive_dead_units(target: BlockAdapter, params: Params, entering: Tensor, context: Context) -> Params:
    """The same blocks, but for dead hidden units, silent on all that enters: those are revived by new weights.

    A dead unit before a ReLU gets no gradient, and would stay so. `entering` is `[models, n, *slot]`.
    """
    group = None if target.readout is None else target.units(Reader(target.readout))
    if group is None:
        return params
    new = {name: tensor.to(entering.device) for name, tensor in fresh(target, context, len(entering)).items()}
    for sign in (1, -1):  # where a new unit is silent too, its opposite is not
        mute = silent(target, params, entering)
        if mute is None or not mute.any():
            break
        for member in group.members:
            if member.scale > 0:
                tensor = params[member.tensor]
                shape = [len(tensor), *(-1 if axis == member.axis else 1 for axis in range(tensor.ndim - 1))]
                mixed = torch.where(mute.view(shape), sign * new[member.tensor], tensor)
                params = {**params, member.tensor: mixed}
    return params
