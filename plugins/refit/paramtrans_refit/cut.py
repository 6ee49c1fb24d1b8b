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
        """Whether the target's tensors are all the source's, but for the numbers of hidden units."""
        smaller = all(n in self.groups and size <= self.groups[n].size for n, size in self.sizes.items())
        return smaller and set(self.target.spec.names) <= set(self.view.names) and self._shapes() == self._wanted()

    def seen(self, source: Params) -> Params:
        """The source's tensors of which the target's are made."""
        return source if self.raw else self.source.read(source)

    def __call__(self, source: Params, kept: dict[str, Tensor]) -> Params:
        """The target with the units `kept`, group by group `[models, units]`."""
        params = self.seen(source)
        for name, chosen in kept.items():
            params = take_units(params, self.groups[name], chosen)
        return {name: params[name] for name in self.target.spec.names}

    def strongest(self, source: Params, name: str) -> Tensor:
        """The units of a group whose weights have the largest product of norms, `[models, units]`, in order."""
        ranked = self.ranked(self.seen(source), self.groups[name])
        return ranked[:, : self.sizes[name]].sort(dim=1).values

    def ranked(self, params: Params, group: SymmetryGroup) -> Tensor:
        """All units of a group, that with the largest product of norms of its weights first: `[models, size]`."""
        return self.strengths(params, group).argsort(dim=1, descending=True, stable=True)

    def strengths(self, params: Params, group: SymmetryGroup) -> Tensor:
        """The product of the norms of each unit's weights: `[models, size]`."""
        kinds = {tensor.name: tensor.kind for tensor in self.view.tensors}
        members = [m for m in group.members if kinds[m.tensor] is TensorKind.WEIGHT]
        moved = [params[m.tensor].movedim(m.axis + 1, 1) for m in members]
        norms = [tensor.reshape(len(tensor), group.size, -1).norm(dim=2) for tensor in moved]
        return torch.stack(norms).prod(0)

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the target's tensors in the view, with the sizes of its groups."""
        shapes = {tensor.name: list(tensor.shape) for tensor in self.view.tensors}
        for name, size in self.sizes.items():
            for member in self.groups[name].members:
                shapes[member.tensor][member.axis] = size * self.groups[name].width
        return {name: tuple(shapes[name]) for name in self.target.spec.names}

    def _wanted(self) -> dict[str, tuple[int, ...]]:
        return {tensor.name: tensor.shape for tensor in self.target.spec.tensors}


def take_units(params: Params, group: SymmetryGroup, kept: Tensor) -> Params:
    """Every tensor of the group with the units `kept` `[models, units]` alone."""
    changed = dict(params)
    for member in group.members:
        if member.tensor in changed:
            tensor, axis = changed[member.tensor], member.axis
            pairs = zip(tensor, values_of(kept, group.width).to(tensor.device), strict=True)
            changed[member.tensor] = torch.stack([one.index_select(axis, chosen) for one, chosen in pairs])
    return changed
