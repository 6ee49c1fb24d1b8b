"""The rules of `paramtrans.networks`, by name and with options."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from pydantic import Field, PositiveInt
from torch import nn

from paramtrans.api.options import BaseOptions, Trials
from paramtrans.networks.activations import Inputs
from paramtrans.networks.allocation import Allotment
from paramtrans.networks.blocks import NetworkBlock
from paramtrans.networks.widths import Budget, Chosen, FlopBudget, Ratio, WidthRule
from paramtrans.plugins.registry import Registry


class RatioOptions(BaseOptions):
    """What stays."""

    ratio: float | dict[str, float] = 0.5
    """Share of the hidden units; or shares by pattern of the blocks' paths, all units where none matches."""


class RatioRule(WidthRule):
    """The same share of every block, or shares by pattern."""

    Options: ClassVar[type[BaseOptions]] = RatioOptions
    options: RatioOptions
    trials: ClassVar[Trials] = ({"ratio": 0.5}, {"ratio": {"*": 0.25}})

    def __call__(self, network: nn.Module, blocks: Sequence[NetworkBlock], batches: Iterable[Inputs]) -> Chosen:
        return Ratio(self.options.ratio)(network, blocks, batches)


class ParameterOptions(BaseOptions):
    """The budget."""

    parameters: PositiveInt
    """Parameters that the network may have."""


class ParameterRule(WidthRule):
    """The largest ratio with which the network has no more parameters than that."""

    Options: ClassVar[type[BaseOptions]] = ParameterOptions
    options: ParameterOptions
    trials: ClassVar[Trials] = ({"parameters": 200},)

    def __call__(self, network: nn.Module, blocks: Sequence[NetworkBlock], batches: Iterable[Inputs]) -> Chosen:
        return Budget(self.options.parameters)(network, blocks, batches)


class FlopOptions(BaseOptions):
    """The budget."""

    flops: PositiveInt
    """Operations that one example may take."""


class FlopRule(WidthRule):
    """The largest ratio with which one example takes no more operations than that."""

    Options: ClassVar[type[BaseOptions]] = FlopOptions
    options: FlopOptions
    trials: ClassVar[Trials] = ({"flops": 400},)

    def __call__(self, network: nn.Module, blocks: Sequence[NetworkBlock], batches: Iterable[Inputs]) -> Chosen:
        return FlopBudget(self.options.flops)(network, blocks, batches)


class MeasuredOptions(ParameterOptions):
    """The budget, and how losses are measured."""

    translator: str = "refit"
    """What each block is translated by to see what it loses."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of that translator."""
    shares: tuple[float, ...] = Field((0.25, 0.5, 0.75), min_length=1)
    """Of the hidden units, each tried for every block."""


class MeasuredRule(WidthRule):
    """The widths within the budget whose measured errors have the least sum (`paramtrans.networks.Allotment`)."""

    Options: ClassVar[type[BaseOptions]] = MeasuredOptions
    options: MeasuredOptions
    trials: ClassVar[Trials] = ({"parameters": 200},)
    needs_registry: ClassVar[bool] = True

    def __init__(self, options: MeasuredOptions, *, registry: Registry) -> None:
        super().__init__(options)
        self.registry = registry

    def __call__(self, network: nn.Module, blocks: Sequence[NetworkBlock], batches: Iterable[Inputs]) -> Chosen:
        options = self.options
        rule = Allotment(options.parameters, options.translator, options.options, options.shares, self.registry)
        return rule(network, blocks, batches)
