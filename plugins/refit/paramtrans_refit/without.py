"""Closed forms that look at nothing but the parameters: hidden units kept, or merged into fewer."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor
from torch.nn.functional import one_hot

from paramtrans.api import stacking as stacks
from paramtrans.api.adapter import BlockAdapter
from paramtrans.api.context import Context
from paramtrans.api.options import BaseOptions
from paramtrans.api.specs import SymmetryGroup
from paramtrans.api.stacking import Params, models
from paramtrans.api.translator import Translator
from paramtrans.api.units import UnitCase
from paramtrans.errors import SpecMismatch
from paramtrans.ops import symmetry
from paramtrans_refit.cut import Cut, take_units


class Closed(Translator):
    """A target of the source's family with fewer hidden units, made from what the source adapter reads.

    Tensors that the target does not have, such as biases, are left out. Raises `SpecMismatch` for another family.
    """

    def __init__(self, options: BaseOptions, source: BlockAdapter, target: BlockAdapter) -> None:
        super().__init__(options, source, target)
        self.cut = Cut(source, target)
        if not self.cut.possible:
            raise SpecMismatch(
                "writes blocks of the source's own family, with no more hidden units; try refit or matching"
            )

    @torch.no_grad()
    def translate(self, source: Params, context: Context | None = None) -> Params:
        stacks.check(source, self.source.spec, "the source blocks")
        params = self.cut.read(source)
        for name in self.cut.sizes:
            params = self.fewer(params, self.cut.groups[name], self.cut.sizes[name])
        return {name: params[name].clone() for name in self.target.spec.names}

    @abstractmethod
    def fewer(self, params: Params, group: SymmetryGroup, count: int) -> Params:
        """The same block with fewer units in a group.

        Args:
            params: Tensors `[models, ...]`.
            group: The group.
            count: How many units stay.
        """


class Prune(Closed):
    """Keeps the hidden units whose weights have the largest product of norms."""

    keeps_units: ClassVar[bool] = True

    @classmethod
    def keep(cls, options: BaseOptions, case: UnitCase) -> Tensor:
        return case.best(case.strengths())

    def fewer(self, params: Params, group: SymmetryGroup, count: int) -> Params:
        return take_units(params, group, self.cut.ranked(params, group)[:, :count].sort(dim=1).values)


class Select(Closed):
    """Keeps hidden units at even distances, whatever they do (weight selection, arXiv 2311.18823)."""

    keeps_units: ClassVar[bool] = True

    @classmethod
    def keep(cls, options: BaseOptions, case: UnitCase) -> Tensor:
        if case.cells is not None:
            return case.best(-torch.arange(len(case)).double())
        return torch.arange(case.count) * len(case) // case.count

    def fewer(self, params: Params, group: SymmetryGroup, count: int) -> Params:
        retained = torch.arange(count) * group.size // count
        return take_units(params, group, retained.expand(models(params), -1))


class MergeOptions(BaseOptions):
    """How long clusters are sought."""

    rounds: PositiveInt = 20
    """Rounds of k-means."""


class Merge(Closed):
    """Merges hidden units that are fed alike: k-means over what feeds them.

    Source: model folding (Wang et al., 2025, arXiv 2502.10216).

    Units are scaled to be fed by vectors of norm one, where that changes nothing. A merged unit is fed by the mean of
    its cluster, each unit weighted by its strength, and what reads it is the sum of what reads them.
    """

    Options: ClassVar[type[BaseOptions]] = MergeOptions
    options: MergeOptions
    merges_units: ClassVar[bool] = True

    def __init__(self, options: BaseOptions, source: BlockAdapter, target: BlockAdapter) -> None:
        super().__init__(options, source, target)
        if any(group.width > 1 for group in self.cut.groups.values()):
            raise SpecMismatch(
                "merges units of one value; of attention heads and groups of channels no mean is taken; try prune"
            )

    @classmethod
    @torch.no_grad()
    def merge(cls, options: BaseOptions, case: UnitCase) -> Tensor:
        """Clusters of units by the weights that write them; each unit counts by the norm of the weights that read it.

        Returns:
            Shares of units in each unit that stays, `[count, units]`, rows that add up to one.

        Raises:
            SpecMismatch: units are heads or groups of channels, or no layer writes them.
        """
        assert isinstance(options, MergeOptions)
        if case.width > 1 or case.cells is not None:
            raise SpecMismatch("merge takes no mean of heads, nor of groups of channels")
        writing = [weight for weight, summed in zip(case.weights, case.summed, strict=True) if not summed]
        reading = [weight for weight, summed in zip(case.weights, case.summed, strict=True) if summed]
        if not writing:
            raise SpecMismatch("merge compares units by the layers that write them, and these have none")
        points = torch.cat(writing, dim=1).double()[None]
        strength = points.new_ones(1, len(case))
        if reading:
            strength = torch.cat(reading, dim=1).double().norm(dim=1)[None].clamp_min(1e-12)
        share = clusters(points, strength, case.count, options.rounds)[0] * strength
        share = share / share.sum(1, keepdim=True)
        ordered: Tensor = share[share.argmax(1).argsort()]
        return ordered

    def fewer(self, params: Params, group: SymmetryGroup, count: int) -> Params:
        if group.rescale:
            params = symmetry.rescale(params, group, 1 / symmetry.unit_norms(params, group, 1))
            strength = symmetry.unit_norms(params, group, -1)
        else:
            strength = torch.ones(models(params), group.size)
        writing = [_by_unit(params[m.tensor], m.axis).flatten(2) for m in group.members if m.scale >= 0]
        share = clusters(torch.cat(writing, dim=2), strength, count, self.options.rounds)
        mean = share * strength[:, None] / (share * strength[:, None]).sum(2, keepdim=True)
        changed = dict(params)
        for member in group.members:
            units = _by_unit(changed[member.tensor], member.axis)
            mixed = (share if member.scale < 0 else mean) @ units.flatten(2)
            written = mixed.view(len(units), count, *units.shape[2:-1])
            changed[member.tensor] = written.movedim(1, member.axis + 1)
        return changed


def _by_unit(tensor: Tensor, axis: int) -> Tensor:
    """A stacked tensor with its units first, and an axis of one value last: `[models, units, ..., 1]`."""
    return tensor.movedim(axis + 1, 1).unsqueeze(-1)


def clusters(points: Tensor, weights: Tensor, count: int, rounds: int) -> Tensor:
    """Weighted k-means (Lloyd 1982).

    It starts at the heaviest point and those furthest from all before, so that nothing is drawn at random; no cluster
    is ever empty.

    Args:
        points: `[models, n, values]`.
        weights: Of the points, `[models, n]`.
        count: How many clusters.
        rounds: How often centres are moved.

    Returns:
        Which points are in which cluster, `[models, count, n]` of 0 and 1.
    """
    rows = torch.arange(len(points))
    chosen = [weights.argmax(1)]
    for _ in range(count - 1):
        distance = torch.cdist(points, points[rows[:, None], torch.stack(chosen, dim=1)]).amin(2) * weights
        distance[rows[:, None], torch.stack(chosen, dim=1)] = -1
        chosen.append(distance.argmax(1))
    centre_points = torch.stack(chosen, dim=1)
    nearest = torch.cdist(points, points[rows[:, None], centre_points]).argmin(2)
    nearest = nearest.scatter(1, centre_points, torch.arange(count).expand_as(centre_points))
    best: Tensor = one_hot(nearest, count).to(points).mT
    for _ in range(rounds):
        heavy = best * weights[:, None]
        centres = heavy @ points / heavy.sum(2, keepdim=True).clamp_min(1e-12)
        assigned = one_hot(torch.cdist(points, centres).argmin(2), count).to(points).mT
        none_empty = (assigned.sum(2) > 0).all(1)[:, None, None]
        best = torch.where(none_empty, assigned, best)
    return best
