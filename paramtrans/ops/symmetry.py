"""Changes of a block's parameters that leave its function unchanged, applied from what adapters declare as data."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from paramtrans.api.specs import BlockSpec, RotationGroup, SymmetryGroup
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
    return _scaled(params, group, factors)


def flip(params: Params, group: SymmetryGroup, signs: Tensor) -> Params:
    """Change the sign of units: of what feeds them and of what reads them.

    Args:
        params: Stacked parameters, each `[models, *shape]`; they are not changed.
        group: Which axes run over the units.
        signs: `[models, size]` of 1 and -1.

    Raises:
        ValueError: the group's units may not change their sign.
    """
    if not group.signs:
        raise ValueError(f"units of group {group.name} may not change their sign")
    return _scaled(params, group, signs)


def _scaled(params: Params, group: SymmetryGroup, factors: Tensor) -> Params:
    changed = dict(params)
    for member in group.members:
        tensor, axis = changed[member.tensor], member.axis + 1
        powers = factors.to(tensor).repeat_interleave(group.width, dim=1) ** member.scale
        changed[member.tensor] = tensor * powers.view(_along(tensor, axis, group.values))
    return changed


def scales(group: SymmetryGroup) -> list[SymmetryGroup]:
    """The group once for each factor that its units have, with the members of that factor."""
    return [replace(group, members=members, further=()) for members in (group.members, *group.further)]


def rotate(params: Params, group: RotationGroup, matrices: Tensor) -> Params:
    """Mix the values of each unit, in all members alike: products of two of them stay as they are.

    Args:
        params: Stacked parameters, each `[models, *shape]`; they are not changed.
        group: Which axes run over the values.
        matrices: `[models, size, width, width]`, orthogonal.
    """
    changed = dict(params)
    for member in group.members:
        tensor = changed[member.tensor]
        moved = tensor.movedim(member.axis + 1, 1)
        units = moved.reshape(len(tensor), group.size, group.width, -1)
        changed[member.tensor] = (matrices.to(tensor) @ units).reshape(moved.shape).movedim(1, member.axis + 1)
    return changed


def random_rotations(group: RotationGroup, count: int, generator: torch.Generator) -> Tensor:
    """Orthogonal matrices for so many models, `[count, size, width, width]`, uniform (Mezzadri, 2007,
    arXiv math-ph/0609050)."""
    noise = torch.randn(count, group.size, group.width, group.width, generator=generator, dtype=torch.float64)
    matrices, upper = torch.linalg.qr(noise)
    uniform: Tensor = matrices * upper.diagonal(dim1=-2, dim2=-1).sign()[..., None, :]
    return uniform


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
        spec: It says what may be permuted, rescaled, changed in sign and rotated.
        generator: Where all randomness comes from.
        spread: Units are rescaled by exp(spread · N(0, 1)).

    Returns:
        Stacked parameters of the same shapes.
    """
    count = models(params)
    for group in spec.symmetries:
        order = torch.rand(count, group.size, generator=generator).argsort(dim=1)
        params = permute(params, group, order)
        for scaled in scales(group) if group.rescale else ():
            params = rescale(params, scaled, torch.exp(spread * torch.randn(count, group.size, generator=generator)))
        if group.signs:
            params = flip(params, group, 1 - 2 * torch.randint(2, (count, group.size), generator=generator))
    for rotation in spec.rotations:
        params = rotate(params, rotation, random_rotations(rotation, count, generator))
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
