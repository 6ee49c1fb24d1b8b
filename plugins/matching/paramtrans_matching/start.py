"""Blocks to start matching from: whole, and with every hidden unit awake."""

from __future__ import annotations

import torch
from torch import Tensor

from paramtrans import seeds
from paramtrans.blocks import BlockAdapter
from paramtrans.hosts import Params
from paramtrans.protocols import Context
from paramtrans.specs import Reader, SymmetryGroup
from paramtrans.stacked import Vmap, initial


def fresh(target: BlockAdapter, context: Context, count: int) -> Params:
    """`count` blocks as PyTorch initialises them, each from the seed of its host, whichever others stand beside it."""
    hosts = context.hosts.seeds if context.hosts is not None else ()
    return initial(target.module, [seeds.derive(context.seed, "matching", each) for each in hosts or range(count)])


def awake(target: BlockAdapter, params: Params, entering: Tensor, context: Context) -> Params:
    """The same blocks, but for hidden units that are silent on all that enters: those are fed by new weights.

    A silent unit behind a ReLU gets no gradient, and would stay so. `entering` is `[models, n, *slot]`.
    """
    group = _read_group(target)
    if group is None:
        return params
    run = Vmap(_Features(target))
    new = {name: tensor.to(entering.device) for name, tensor in fresh(target, context, len(entering)).items()}
    for sign in (1, -1):  # where a new unit is silent too, its opposite is not
        heard = run({f"block.{name}": tensor for name, tensor in params.items()}, entering)
        silent = heard.abs().movedim(2, 1).flatten(2).amax(2) == 0
        if not silent.any():
            break
        for member in group.members:
            if member.scale > 0:
                tensor = params[member.tensor]
                shape = [len(tensor), *(-1 if axis == member.axis else 1 for axis in range(tensor.ndim - 1))]
                mixed = torch.where(silent.view(shape), sign * new[member.tensor], tensor)
                params = {**params, member.tensor: mixed}
    return params


class _Features(torch.nn.Module):
    """What the last layer of a block's branch reads."""

    def __init__(self, target: BlockAdapter) -> None:
        super().__init__()
        self.block = target.module()

    def forward(self, inputs: Tensor) -> Tensor:
        read: Tensor = self.block.features(inputs)  # type: ignore[operator]
        return read


def _read_group(target: BlockAdapter) -> SymmetryGroup | None:
    """The hidden units that the block's last layer reads, where the adapter declares them."""
    return None if target.readout is None else target.units(Reader(target.readout))
