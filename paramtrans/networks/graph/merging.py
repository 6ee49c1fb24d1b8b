"""Units merged into fewer: what writes them averaged, what reads them added up."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from paramtrans.errors import SpecMismatch
from paramtrans.networks.graph.groups import Analysis, NamedGroup
from paramtrans.networks.graph.narrow import Retained
from paramtrans.networks.graph.proof import named_tensors
from paramtrans.networks.graph.summed import summed_axis


def representatives(shares: Tensor, group: NamedGroup, count: int) -> Tensor:
    """The unit of the largest share in each merged unit.

    Args:
        shares: Rows that add up to one, `[count, units]`.
        group: The group that is merged.
        count: How many units stay.

    Returns:
        Numbers of units, `[count]`, in order.

    Raises:
        SpecMismatch: these are no such shares.
    """
    unfit = shares.shape != (count, len(group)) or not bool(shares.isfinite().all()) or bool((shares < 0).any())
    if unfit or not torch.allclose(shares.sum(1), shares.new_ones(count), atol=1e-4):
        raise SpecMismatch(f"{group.path}: shares of units are {count} rows of {len(group)} that add up to one each")
    largest: Tensor = shares.argmax(1)
    if bool((largest.diff() <= 0).any()):
        raise SpecMismatch(f"{group.path}: the units of the largest shares have to be others in each row, and in order")
    return largest


@torch.no_grad()
def merge(analysis: Analysis, small: nn.Module, indices: Retained, shares: Mapping[NamedGroup, Tensor]) -> None:
    """Write the tensors of merged units in a smaller network that has the representatives of each.

    Args:
        analysis: Of the untouched network.
        small: The smaller network, which is written to.
        indices: What stays of each tensor.
        shares: For each group `[count, units]`, rows that add up to one.
    """
    names = analysis.program.names
    sums = {summed_axis(node, names) for node in analysis.program.nodes}
    original_tensors, small_tensors = named_tensors(analysis.network), named_tensors(small)
    mixing: dict[str, dict[int, Tensor]] = {}
    for group, group_shares in shares.items():
        heads = group_shares.argmax(1)
        for axis in group.units.axes:
            size = original_tensors[axis.tensor].shape[axis.axis]
            stays = indices[axis.tensor][axis.axis]
            mixed = mixing.setdefault(axis.tensor, {}).setdefault(
                axis.axis, torch.eye(size, dtype=group_shares.dtype)[stays]
            )
            first_indices = axis.indices[:, 0]
            rows = torch.searchsorted(stays, first_indices[heads])
            weights = (group_shares > 0).to(group_shares) if (axis.tensor, axis.axis) in sums else group_shares
            block = torch.zeros(len(heads), size, dtype=group_shares.dtype)
            block[:, first_indices] = weights
            mixed[rows] = block
    for name, axes in mixing.items():
        if original_tensors[name].is_floating_point():
            small_tensors[name].data.copy_(_mixed(original_tensors[name], indices[name], axes))


def _mixed(tensor: Tensor, indices: list[Tensor], mixing: Mapping[int, Tensor]) -> Tensor:
    """A tensor with some indices of each axis, or mixtures of them."""
    values = tensor.detach().double()
    for axis, stays in enumerate(indices):
        if axis in mixing:
            values = torch.tensordot(mixing[axis].to(values), values, dims=([1], [axis])).movedim(0, axis)
        elif len(stays) < values.shape[axis]:
            values = values.index_select(axis, stays.to(values.device))
    return values
