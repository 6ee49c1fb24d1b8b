"""The rules of `paramtrans.networks`, by name and with options."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from pydantic import Field, PositiveFloat, PositiveInt
from torch import nn

from paramtrans.api.options import BaseOptions, Trials
from paramtrans.networks.allocation import Allotment
from paramtrans.networks.blocks.finding import NetworkBlock
from paramtrans.networks.forward.activations import Inputs
from paramtrans.networks.graph.groups import NamedGroup
from paramtrans.networks.units.widths import GroupSizes
from paramtrans.networks.widths import Budget, Chosen, FlopBudget, LatencyBudget, Ratio, WidthRule
from paramtrans.plugins.registry import Registry


class RoundingOptions(BaseOptions):
    """How numbers of units are rounded."""

    multiple_of: PositiveInt | None = None
    """What widths become a multiple of, heads aside; by default of 8 where there are 64 units or more."""
    least: PositiveInt = 1
    """Fewest units of a group."""

    @property
    def rounding(self) -> dict[str, Any]:
        """As the rules of `paramtrans.networks` take it."""
        return {"multiple_of": self.multiple_of, "least": self.least}


class KnownRule(WidthRule):
    """One of the rules of `paramtrans.networks`, for blocks and for groups of units."""

    @abstractmethod
    def rule(self) -> Ratio | Budget | FlopBudget | LatencyBudget | Allotment:
        """That rule."""

    def __call__(self, network: nn.Module, blocks: Sequence[NetworkBlock], batches: Iterable[Inputs]) -> Chosen:
        return self.rule()(network, blocks, batches)

    def of_groups(self, case: GroupSizes) -> dict[NamedGroup, int]:
        """The numbers of units of groups of a network's graph."""
        return self.rule().of_groups(case)


class RatioOptions(RoundingOptions):
    """What stays."""

    ratio: float | dict[str, float] = 0.5
    """Share of the hidden units; or shares by pattern of the blocks' paths, all units where none matches."""


class RatioRule(KnownRule):
    """The same share of every block, or shares by pattern."""

    Options: ClassVar[type[BaseOptions]] = RatioOptions
    options: RatioOptions
    trials: ClassVar[Trials] = ({"ratio": 0.5}, {"ratio": {"*": 0.25}}, {"multiple_of": 4})

    def rule(self) -> Ratio:
        return Ratio(self.options.ratio, **self.options.rounding)


class ParameterOptions(RoundingOptions):
    """The budget."""

    parameters: PositiveInt
    """Parameters that the network may have."""


class ParameterRule(KnownRule):
    """The largest ratio with which the network has no more parameters than that."""

    Options: ClassVar[type[BaseOptions]] = ParameterOptions
    options: ParameterOptions
    trials: ClassVar[Trials] = ({"parameters": 200},)

    def rule(self) -> Budget:
        return Budget(self.options.parameters, **self.options.rounding)


class FlopOptions(RoundingOptions):
    """The budget."""

    flops: PositiveInt
    """Operations that one example may take."""


class FlopRule(KnownRule):
    """The largest ratio with which one example takes no more operations than that."""

    Options: ClassVar[type[BaseOptions]] = FlopOptions
    options: FlopOptions
    trials: ClassVar[Trials] = ({"flops": 400},)

    def rule(self) -> FlopBudget:
        return FlopBudget(self.options.flops, **self.options.rounding)


class LatencyOptions(RoundingOptions):
    """The budget."""

    milliseconds: PositiveFloat
    """How long the first batch of inputs may take."""


class LatencyRule(KnownRule):
    """The largest ratio with which the first batch of inputs is measured to take no longer than that."""

    Options: ClassVar[type[BaseOptions]] = LatencyOptions
    options: LatencyOptions
    trials: ClassVar[Trials] = ({"milliseconds": 1e4},)

    def rule(self) -> LatencyBudget:
        return LatencyBudget(self.options.milliseconds, **self.options.rounding)


class MeasuredOptions(RoundingOptions):
    """The budget, and how losses are measured."""

    parameters: PositiveInt | None = None
    """Parameters that the network may have; or one of the two others, for groups of units."""
    flops: PositiveInt | None = None
    """Operations that one example may take."""
    milliseconds: PositiveFloat | None = None
    """How long the first batch of inputs may take."""
    translator: str = "refit"
    """What each block is translated by to see what it loses."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of that translator."""
    shares: tuple[float, ...] = Field((0.25, 0.5, 0.75), min_length=1)
    """Of the hidden units, each tried for every block."""


class MeasuredRule(KnownRule):
    """The widths within the budget whose measured errors have the least sum (`paramtrans.networks.Allotment`)."""

    Options: ClassVar[type[BaseOptions]] = MeasuredOptions
    options: MeasuredOptions
    trials: ClassVar[Trials] = ({"parameters": 200},)
    needs_registry: ClassVar[bool] = True

    def __init__(self, options: MeasuredOptions, *, registry: Registry) -> None:
        super().__init__(options)
        self.registry = registry

    def rule(self) -> Allotment:
        options = self.options
        budgets: dict[str, Any] = {"flops": options.flops, "milliseconds": options.milliseconds}
        return Allotment(
            options.parameters,
            options.translator,
            options.options,
            options.shares,
            self.registry,
            **budgets,
            **options.rounding,
        )
