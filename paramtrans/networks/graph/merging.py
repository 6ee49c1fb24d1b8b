"""Units merged into fewer: what writes them averaged, what reads them added up."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from paramtrans.errors import SpecMismatch
from paramtrans.networks.graph.groups import Analysis, NamedGroup
from paramtrans.networks.graph.narrow import Kept
from paramtrans.networks.graph.proof import named_tensors
from paramtrans.networks.graph.summed import summed


def representatives(shares: Tensor, group: NamedGroup, count: int) -> Tensor:
    """The unit of the largest share in each that stays `[count]`; raises `SpecMismatch` for what are no shares."""
    wrong = shares.shape != (count, len(group)) or not bool(shares.isfinite().all()) or bool((shares < 0).any())
    if wrong or not torch.allclose(shares.sum(1), shares.new_ones(count), atol=1e-4):
        raise SpecMismatch(f"{group.path}: shares of units are {count} rows of {len(group)} that add up to one each")
    found: Tensor = shares.argmax(1)
    if bool((found.diff() <= 0).any()):
        raise SpecMismatch(f"{group.path}: the units of the largest shares have to be others in each row, and in order")
    return found


@torch.no_grad()
def merge(analysis: Analysis, small: nn.Module, indices: Kept, shares: Mapping[NamedGroup, Tensor]) -> None:
    """Write the tensors of merged units in a smaller network that has the representatives of each.

    Args:
        analysis: Of the untouched network.
        small: The smaller network, which is written to.
        indices: What stays of each tensor.
        shares: For each group `[count, units]`, rows that add up to one.
    """
    names = analysis.program.names
    sums = {summed(node, names) for node in analysis.program.nodes}
    before, after = named_tensors(analysis.network), named_tensors(small)
    mixing: dict[str, dict[int, Tensor]] = {}
    for group, own in shares.items():
        heads = own.argmax(1)
        for axis in group.units.axes:
            size = before[axis.tensor].shape[axis.axis]
            stays = indices[axis.tensor][axis.axis]
            mixed = mixing.setdefault(axis.tensor, {}).setdefault(axis.axis, torch.eye(size, dtype=own.dtype)[stays])
            places = axis.indices[:, 0]
            rows = torch.searchsorted(stays, places[heads])
            weights = (own > 0).to(own) if (axis.tensor, axis.axis) in sums else own
            block = torch.zeros(len(heads), size, dtype=own.dtype)
            block[:, places] = weights
            mixed[rows] = block
    for name, axes in mixing.items():
        if before[name].is_floating_point():
            after[name].data.copy_(_mixed(before[name], indices[name], axes))


def _mixed(tensor: Tensor, indices: list[Tensor], mixing: Mapping[int, Tensor]) -> Tensor:
    """A tensor with some indices of each axis, or mixtures of them."""
    values = tensor.detach().double()
    for axis, stays in enumerate(indices):
        if axis in mixing:
            values = torch.tensordot(mixing[axis].to(values), values, dims=([1], [axis])).movedim(0, axis)
        elif len(stays) < values.shape[axis]:
            values = values.index_select(axis, stays.to(values.device))
    return values
