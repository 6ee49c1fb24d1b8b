"""What rules for widths see of the groups of units of a network: their sizes, and what the network then costs."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from paramtrans.evaluation.costs import count as count_operations, parameters
from paramtrans.networks.forward.activations import Inputs, call, first_examples
from paramtrans.networks.forward.examples import Examples
from paramtrans.networks.graph.groups import Analysis, Bundle, NamedGroup, prove_groups
from paramtrans.networks.graph.narrow import Removal, narrow
from paramtrans.networks.units.rounding import Rounding

Counts = Mapping[NamedGroup, int]
RUNS = 7
"""Passes that a latency is the median of, after one that is not counted."""


BUDGETS = ("parameters", "flops", "milliseconds")
"""Fields of rules that say how much a network may cost."""


def keeps_budget(rule: object) -> bool:
    """Whether a rule for widths is one for what the network may cost."""
    return any(getattr(rule, name, None) is not None for name in BUDGETS)


@runtime_checkable
class GroupRule(Protocol):
    """A rule for widths that takes groups of units too."""

    def of_groups(self, case: GroupSizes) -> dict[NamedGroup, int]:
        """How many units of each group stay; groups that are left out keep all."""
        ...


@dataclass(frozen=True)
class GroupSizes:
    """Groups of units of a network, and what it costs with fewer of them."""

    analysis: Analysis
    groups: Sequence[NamedGroup]
    examples: Examples
    """Calibration inputs, and processes that are given the same and share out what is tried."""
    seed: int = 0
    """For whatever is drawn."""
    beside: Counts = field(default_factory=dict)
    """Units that stay of other groups, whatever these keep: what the network costs is without the rest of them."""
    together: Sequence[Bundle] = ()
    """Of these, groups that become smaller with each other or not at all."""

    def share(self, ratio: float, rounding: Rounding) -> dict[NamedGroup, int]:
        """The same share of all groups, as far as each can have it.

        Args:
            ratio: The share, up to 1.
            rounding: How numbers of units are rounded.

        Returns:
            Units that stay, for each group.
        """
        return {group: self.near(group, len(group) * ratio, rounding) for group in self.groups}

    @staticmethod
    def near(group: NamedGroup, wanted: float, rounding: Rounding) -> int:
        """The number of units nearest to a wanted one that a group can have.

        Args:
            group: The group.
            wanted: How many units should stay.
            rounding: How numbers of units are rounded.

        Returns:
            A number of units.
        """
        count = rounding(len(group), wanted, group.width > 1)
        return len(group) if count == len(group) else group.units.allowed(count)

    def parameters(self, counts: Counts) -> int:
        """Parameters of the network with as many units of each group.

        Args:
            counts: Units that stay, for each group.

        Returns:
            A number of values.
        """
        left = self._removal({**self.beside, **counts}).retained()
        saved = sum(
            math.prod(shape) - math.prod(len(indices) for indices in left[name])
            for name, shape in self._shapes.items()
            if name in left
        )
        return parameters(self.analysis.network) - saved

    def flops(self, counts: Counts) -> int:
        """Operations that one example takes, as PyTorch counts them.

        Args:
            counts: Units that stay, for each group.

        Returns:
            FLOPs; a multiply-add is two.
        """
        small = self.smaller(counts)
        with torch.no_grad():
            return count_operations(lambda: call(small, first_examples(self.examples.first, 1)))

    def milliseconds(self, counts: Counts) -> float:
        """How long the network takes for the first batch of inputs, where it is: the median of some passes.

        Args:
            counts: Units that stay, for each group.

        Returns:
            Milliseconds.
        """
        return latency(self.smaller(counts), self.examples.first)

    def smaller(self, counts: Counts) -> nn.Module:
        """The network with as many units of each group that passes the proof; no matter which ones.

        Args:
            counts: Units that stay, for each group.

        Returns:
            A network of these sizes.
        """
        proven = prove_groups(self.analysis, {**self.beside, **counts}, self.together)
        return narrow(self.analysis.network, self._removal(proven.counts), list(proven.settings))

    def _removal(self, counts: Counts) -> Removal:
        return self.analysis.removal(
            {group: group.units.choose(torch.zeros(len(group)), count) for group, count in counts.items()}
        )

    @cached_property
    def _shapes(self) -> dict[str, list[int]]:
        return {name: list(parameter.shape) for name, parameter in self.analysis.network.named_parameters()}


@torch.no_grad()
def latency(network: nn.Module, batch: Inputs) -> float:
    """Milliseconds that a network takes for a batch, where it is: the median of `RUNS` passes."""
    call(network, batch)
    milliseconds = []
    for _ in range(RUNS):
        _wait(network)
        started = time.perf_counter()
        call(network, batch)
        _wait(network)
        milliseconds.append(1000 * (time.perf_counter() - started))
    return statistics.median(milliseconds)


def _wait(network: nn.Module) -> None:
    if any(parameter.is_cuda for parameter in network.parameters()):
        torch.cuda.synchronize()
