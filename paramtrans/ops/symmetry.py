"""Changes of a block's parameters that leave its function unchanged, applied from what adapters declare as data."""

from __future__ import annotations

import torch
from torch import Tensor

from paramtrans.api.specs import BlockSpec, SymmetryGroup
from paramtrans.api.stacking import Params, models


def permute(params: Params, group: SymmetryGroup, order: Tensor) -> Params:
    """Reorder a group's units.

    Args:
        params: Stacked parameters, each `[models, *shape]`; they are not changed.
        group: Which axes run over the units.
        order: `[models, size]`; unit i of the result is unit `order[:, i]` before.
    """
    changed = dict(params)
    for member in group.members:
        tensor, axis = changed[member.tensor], member.axis + 1
        index = values_of(order, group.width).to(tensor.device).view(_along(tensor, axis, group.values))
        changed[member.tensor] = tensor.gather(axis, index.expand_as(tensor))
    return changed


def rescale(params: Params, group: SymmetryGroup, factors: Tensor) -> Params:
    """Multiply a group's units by positive factors.

    Members with scale 1 (what feeds a unit) are multiplied, those with scale -1 (what reads it) divided. A ReLU passes
    positive factors on, so the function stays (Neyshabur et al., 2015, Path-SGD, arXiv 1506.02617).

    Args:
        params: Stacked parameters, each `[models, *shape]`; they are not changed.
        group: Which axes run over the units.
        factors: `[models, size]`, positive.

    Raises:
        ValueError: the group's units may be permuted, but not rescaled.
    """
    if not group.rescale:
        raise ValueError(f"group {group.name} may be permuted, but not rescaled")
    changed = dict(params)
    for member in group.members:
        tensor, axis = changed[member.tensor], member.axis + 1
        powers = factors.to(tensor).repeat_interleave(group.width, dim=1) ** member.scale
        changed[member.tensor] = tensor * powers.view(_along(tensor, axis, group.values))
    return changed


def balance(params: Params, spec: BlockSpec) -> Params:
    """The same function in a form that rescaling does not change: what feeds a unit is as large as what reads it.

    Each unit is rescaled by √(‖reading‖ / ‖feeding‖), as equi-normalisation does layer by layer (Stock et al., 2019,
    arXiv 1902.10416).

    Args:
        params: Stacked parameters, each `[models, *shape]`; they are not changed.
        spec: It says which groups may be rescaled.
    """
    for group in spec.symmetries:
        if group.rescale:
            feeding, reading = (unit_norms(params, group, scale) for scale in (1, -1))
            params = rescale(params, group, torch.sqrt(reading / feeding))
    return params


def random_orbit(params: Params, spec: BlockSpec, generator: torch.Generator, spread: float = 0.5) -> Params:
    """Other parameters, same function: a random point of the orbit under all symmetries.

    Args:
        params: Stacked parameters, each `[models, *shape]`; they are not changed.
        spec: It says what may be permuted and rescaled.
        generator: Where all randomness comes from.
        spread: Units are rescaled by exp(spread · N(0, 1)).

    Returns:
        Stacked parameters of the same shapes.
    """
    count = models(params)
    for group in spec.symmetries:
        order = torch.rand(count, group.size, generator=generator).argsort(dim=1)
        params = permute(params, group, order)
        if group.rescale:
            params = rescale(params, group, torch.exp(spread * torch.randn(count, group.size, generator=generator)))
    return params


def unit_norms(params: Params, group: SymmetryGroup, scale: int) -> Tensor:
    """Norm of all that a rescaling by a changes by a**scale, for each unit.

    Args:
        params: Stacked parameters, each `[models, *shape]`.
        group: The units.
        scale: 1 for what feeds them, -1 for what reads them.

    Returns:
        `[models, size]`, never zero.
    """
    moved = [params[m.tensor].movedim(m.axis + 1, 1) for m in group.members if m.scale == scale]
    values = torch.cat([tensor.reshape(len(tensor), group.size, -1) for tensor in moved], dim=2)
    return values.square().sum(2).sqrt().clamp_min(1e-6)


def values_of(units: Tensor, width: int) -> Tensor:
    """Where the values of units `[models, n]` stand along an axis: `[models, n * width]`."""
    return (units[..., None] * width + torch.arange(width, device=units.device)).flatten(1)


def _along(tensor: Tensor, axis: int, size: int) -> list[int]:
    """Shape that spreads `[models, size]` values along one axis of a stacked tensor."""
    return [len(tensor), *(size if i == axis else 1 for i in range(1, tensor.ndim))]
