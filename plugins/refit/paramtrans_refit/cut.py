"""A target of the source's family: the same tensors, with fewer of the source's hidden units."""

from __future__ import annotations

import torch
from torch import Tensor

from paramtrans.api.adapter import BlockAdapter
from paramtrans.api.specs import BlockSpec, SymmetryGroup, TensorKind
from paramtrans.api.stacking import Params
from paramtrans.ops.symmetry import values_of


class Cut:
    """Takes hidden units of source blocks over into target blocks."""

    def __init__(self, source: BlockAdapter, target: BlockAdapter) -> None:
        self.source, self.target = source, target
        self.raw = target.spec.names == source.spec.names
        """Whether the target takes the source's tensors as they are, normalisation and all, or what `read` makes."""
        self.view: BlockSpec = source.spec if self.raw else source.reading
        self.groups = {group.name: group for group in self.view.symmetries}
        self.sizes = {group.name: group.size for group in target.spec.symmetries}

    @property
    def possible(self) -> bool:
        """Whether the target's tensors are all tensors of the source, but for the numbers of hidden units."""
        smaller = all(n in self.groups and size <= self.groups[n].size for n, size in self.sizes.items())
        return (
            smaller
            and set(self.target.spec.names) <= set(self.view.names)
            and self._cut_shapes() == self._target_shapes()
        )

    def read(self, source: Params) -> Params:
        """The source's tensors that the target's are taken from."""
        return source if self.raw else self.source.read(source)

    def __call__(self, source: Params, retained: dict[str, Tensor]) -> Params:
        """The target block with some of the source's units.

        Args:
            source: Tensors of the source blocks.
            retained: For each group the numbers of the units that stay, `[models, units]`.
        """
        params = self.read(source)
        for name, chosen in retained.items():
            params = take_units(params, self.groups[name], chosen)
        return {name: params[name] for name in self.target.spec.names}

    def strongest(self, source: Params, name: str) -> Tensor:
        """The units of a group whose weights have the largest product of norms.

        Args:
            source: Tensors of the source blocks.
            name: Of the group.

        Returns:
            `[models, units]`, in order.
        """
        ranked = self.ranked(self.read(source), self.groups[name])
        return ranked[:, : self.sizes[name]].sort(dim=1).values

    def ranked(self, params: Params, group: SymmetryGroup) -> Tensor:
        """All units of a group, that with the largest product of norms of its weights first.

        Args:
            params: Tensors `[models, ...]`.
            group: The group.

        Returns:
            Numbers of units, `[models, size]`.
        """
        return self.strengths(params, group).argsort(dim=1, descending=True, stable=True)

    def strengths(self, params: Params, group: SymmetryGroup) -> Tensor:
        """The product of the norms of each unit's weights.

        Args:
            params: Tensors `[models, ...]`.
            group: The group.

        Returns:
            `[models, size]`.
        """
        kinds = {tensor.name: tensor.kind for tensor in self.view.tensors}
        members = [m for m in group.members if kinds[m.tensor] is TensorKind.WEIGHT]
        moved = [params[m.tensor].movedim(m.axis + 1, 1) for m in members]
        norms = [tensor.reshape(len(tensor), group.size, -1).norm(dim=2) for tensor in moved]
        return torch.stack(norms).prod(0)

    def _cut_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the target's tensors in the view, with the sizes of its groups."""
        shapes = {tensor.name: list(tensor.shape) for tensor in self.view.tensors}
        for name, size in self.sizes.items():
            for member in self.groups[name].members:
                shapes[member.tensor][member.axis] = size * self.groups[name].width
        return {name: tuple(shapes[name]) for name in self.target.spec.names}

    def _target_shapes(self) -> dict[str, tuple[int, ...]]:
        return {tensor.name: tensor.shape for tensor in self.target.spec.tensors}


def take_units(params: Params, group: SymmetryGroup, retained: Tensor) -> Params:
    """Tensors with some units of a group alone.

    Args:
        params: Tensors `[models, ...]`.
        group: The group.
        retained: Numbers of the units that stay, `[models, units]`.
    """
    changed = dict(params)
    for member in group.members:
        if member.tensor in changed:
            tensor, axis = changed[member.tensor], member.axis
            pairs = zip(tensor, values_of(retained, group.width).to(tensor.device), strict=True)
            changed[member.tensor] = torch.stack(
                [model_tensor.index_select(axis, chosen) for model_tensor, chosen in pairs]
            )
    return changed
