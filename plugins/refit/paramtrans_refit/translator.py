"""Least-squares reconstruction (closed form): the most important units stay, and what reads them is solved for.

Units are taken out as Optimal Brain Surgeon (Hassibi and Stork, 1992) takes out weights, one group at a time; solving
for the readers on a few inputs is also what GRAIL (arXiv 2602.23795) and CORP (arXiv 2602.05243) do.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import NonNegativeFloat
from torch import Tensor

from paramtrans.api import stacking as stacks
from paramtrans.api.adapter import BlockAdapter
from paramtrans.api.context import Context
from paramtrans.api.modules import initial
from paramtrans.api.options import BaseOptions
from paramtrans.api.specs import Reader
from paramtrans.api.stacking import Params
from paramtrans.api.translator import Translator
from paramtrans.api.units import Reading, UnitCase
from paramtrans.errors import SpecMismatch
from paramtrans.ops.agreement import disagreement
from paramtrans.ops.least_squares import GramMatrices
from paramtrans.ops.readout import Readout
from paramtrans.ops.symmetry import values_of
from paramtrans_refit.choose import by_contribution, by_elimination, reduced
from paramtrans_refit.cut import Cut
from paramtrans_refit.shrink import shrunk


class RefitOptions(BaseOptions):
    """How units are chosen, and how firmly what reads them is held."""

    units: Literal["error", "activation", "norm"] = "error"
    """Which hidden units stay. `error`: those without which the solved block would be worst, one after the other taken
    out; of few examples, as far as two halves of them agree, and as `norm` does for the rest. `activation`: those whose
    contributions on the probes have the largest mean square. `norm`: those with the largest product of weight norms."""
    choose: Literal["before", "there"] = "before"
    """Where units of a network's graph are chosen. `before`: in a pass of the untouched network. `there`: units that
    one layer reads when it is reached in the smaller network, by what it has to make up for."""
    ridge: NonNegativeFloat | None = None
    """How strongly the solution is pulled to the source's own weights, relative to the mean square of what each weight
    reads; by default what does best on held-out probes, for each model and layer."""


class Refit(Translator):
    """Least-squares reconstruction (closed form): hidden units stay, and the layers that read them are solved for.

    Works where source and target are of one family. A target of another one keeps its tensors of `context.start`
    (or, without, of a default initialisation) but for the layers solved for.
    """

    Options: ClassVar[type[BaseOptions]] = RefitOptions
    options: RefitOptions
    needs_probes: ClassVar[bool] = True
    keeps_units: ClassVar[bool] = True
    solves_readers: ClassVar[bool] = True

    def __init__(self, options: RefitOptions, source: BlockAdapter, target: BlockAdapter) -> None:
        super().__init__(options, source, target)
        self.readout = Readout(source, target)
        self.cut = Cut(source, target)
        self.source_readout = Readout(source, source) if self.cut.possible and source.readers() else None

    @classmethod
    @torch.no_grad()
    def keep(cls, options: BaseOptions, case: UnitCase) -> Tensor:
        assert isinstance(options, RefitOptions)
        if options.units == "norm" or not case.readings:
            return case.best(case.strengths())
        if options.units == "activation":
            shares = [_contribution(reading, len(case)) / reading.power.sum() for reading in case.readings]
            return case.best(torch.stack(shares).sum(0))
        matrices = [_gram_matrices(reading, case) for reading in case.readings]
        return by_elimination(matrices, len(case), case.count, case.cells)[0]

    @torch.no_grad()
    def translate(self, source: Params, context: Context | None = None) -> Params:
        stacks.check(source, self.source.spec, "the source blocks")
        if context is None:
            raise SpecMismatch("the refit compares what blocks compute; give it a context with probes")
        params, retained = self._start(source, context)
        params = self.readout.revive_channels(params)
        if not retained:  # nothing but the last layer has anything to be compared with
            return self._solved(len(self.readout.readers) - 1, params, source, context, None)
        last_reader = len(self.readout.readers) - 1
        for index in range(last_reader + 1):
            read_next = None
            if index < last_reader:
                name = self._read(self.target, self.readout.readers[index + 1])
                read_next = values_of(retained[name], self.cut.groups[name].width)
            params = self._solved(index, params, source, context, read_next)
        return params

    def _solved(self, index: int, params: Params, source: Params, context: Context, read_next: Tensor | None) -> Params:
        matrices = self.readout.gram_matrices(index, params, source, context, read_next)
        return self.readout.solve(index, params, matrices, self.options.ridge)

    def _start(self, source: Params, context: Context) -> tuple[Params, dict[str, Tensor]]:
        """The target before anything is solved for, and the units it took from the source, group by group."""
        if context.start is not None:
            return context.start, {}
        if self.cut.possible:
            retained = {name: self._chosen(name, source, context) for name in self.cut.sizes}
            return self.cut(source, retained), retained
        fresh = initial(self.target.module, [context.seed])
        device = next(iter(source.values())).device
        count = stacks.models(source)
        return {name: tensor.to(device).expand(count, *tensor.shape[1:]) for name, tensor in fresh.items()}, {}

    def _chosen(self, name: str, source: Params, context: Context) -> Tensor:
        """The units of a group that stay, `[models, units]`."""
        read = [] if self.source_readout is None else [self._read(self.source, r) for r in self.source_readout.readers]
        units, keep = self.cut.groups[name].size, self.cut.sizes[name]
        if self.source_readout is None or self.options.units == "norm" or name not in read or keep == units:
            return self.cut.strongest(source, name)
        index, revived = read.index(name), self.source_readout.revive_channels(source)
        read_next = read[index + 1] if index + 1 < len(read) else None
        all_values = None if read_next is None else torch.arange(self.cut.groups[read_next].values)
        all_values = None if all_values is None else all_values.expand(stacks.models(source), -1)
        matrices = self.source_readout.gram_matrices(index, revived, source, context, all_values)
        importance, weights = self.source_readout.importance_matrices(index, revived, matrices)
        if self.options.units == "activation":
            return by_contribution(importance, weights.to(importance.gram), units, keep)
        strengths = self.cut.strengths(self.cut.read(source), self.cut.groups[name])
        doubt = disagreement(self.source_readout.scoring_view(index), matrices, weights, matrices.examples)
        return by_elimination(shrunk(importance, weights, strengths, doubt), units, keep)

    @staticmethod
    def _read(adapter: BlockAdapter, reader: Reader) -> str:
        """Name of the group of units that a reader reads."""
        group = adapter.units(reader)
        return "" if group is None else group.name


def _contribution(reading: Reading, units: int) -> Tensor:
    """Mean square of what each unit adds to what a layer gives, each alone: `[units]`."""
    square = reading.gram.diagonal() * reading.weight.to(reading.gram).square().sum(1)
    return square.view(units, -1).sum(1)


def _gram_matrices(reading: Reading, case: UnitCase) -> GramMatrices:
    matrices = GramMatrices(reading.gram[None], reading.cross[None], reading.power[None])
    doubt = None if reading.doubt is None else matrices.gram.new_tensor([reading.doubt])
    return reduced(shrunk(matrices, reading.weight[None], case.strengths()[None], doubt), reading.weight, len(case))
