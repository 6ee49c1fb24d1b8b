"""Rules for how many hidden units each block of a network keeps."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import nn

from paramtrans.api.options import BaseOptions, Configurable
from paramtrans.errors import SpecMismatch
from paramtrans.evaluation.costs import flops, parameters
from paramtrans.networks.blocks.finding import NetworkBlock, costs, matches, some_of
from paramtrans.networks.forward.activations import Inputs, shapes_entering
from paramtrans.networks.graph.groups import NamedGroup
from paramtrans.networks.units.rounding import Rounding
from paramtrans.networks.units.widths import BUDGETS, GroupSizes, latency
from paramtrans.plugins.registry import Registry

Chosen = dict[str, dict[str, int]]
"""For each block, by the path of its entrance, the size of each group of its hidden units."""
STEPS = 12
"""Bisections of a ratio where each takes a pass of the network."""


class Widths(Protocol):
    """A rule."""

    def __call__(self, network: nn.Module, blocks: Sequence[NetworkBlock], batches: Iterable[Inputs]) -> Chosen:
        """Sizes of all groups of all blocks; a block that keeps its sizes is left as it is."""
        ...


class WidthRule(Configurable, ABC):
    """A rule that a plugin offers by name, with options of its own."""

    def __init__(self, options: BaseOptions) -> None:
        self.options = options

    @abstractmethod
    def __call__(self, network: nn.Module, blocks: Sequence[NetworkBlock], batches: Iterable[Inputs]) -> Chosen:
        """How many hidden units each block keeps.

        Args:
            network: The network, as it is.
            blocks: The blocks that are translated: `sizes` has the number of units of each group, `entrance` the path
                by which a block is named here.
            batches: The calibration inputs; none where there are none.

        Returns:
            For each block, by its `entrance`, the size of each of its groups.

        Raises:
            SpecMismatch: the rule cannot be kept with these blocks, or needs inputs.
        """


@runtime_checkable
class LooksUp(Protocol):
    """A rule that looks up components itself."""

    def with_registry(self, registry: Registry) -> Widths:
        """The same rule, which looks them up here."""
        ...


def with_registry(rule: Widths, registry: Registry) -> Widths:
    """A rule with the caller's own plugins, where it looks up any."""
    return rule.with_registry(registry) if isinstance(rule, LooksUp) else rule


def checked(chosen: object, blocks: Sequence[NetworkBlock]) -> Chosen:
    """What a rule gave, held to what it promises; raises `SpecMismatch` where sizes of a block are missing or none."""
    for block in blocks:
        sizes = chosen.get(block.entrance) if isinstance(chosen, Mapping) else None
        if not isinstance(sizes, Mapping) or not sizes.keys() <= block.sizes.keys():
            groups = ", ".join(block.sizes)
            raise SpecMismatch(f'widths: the rule gives no sizes for "{block.entrance}"; it may for: {groups}')
        for group, size in sizes.items():
            if type(size) is not int or not 0 < size <= block.sizes[group]:
                most = block.sizes[group]
                raise SpecMismatch(f'widths: {size!r} of "{block.entrance}" ({group}) is no number from 1 to {most}')
    return dict(chosen)  # type: ignore[call-overload, no-any-return]


def _is_positive(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0


@dataclass(frozen=True, kw_only=True)
class Rounded(ABC):
    """How a rule rounds numbers of units."""

    multiple_of: int | None = None
    """What widths become a multiple of, units of several values (heads) aside; by default of 8 where a width is at
    least 64."""
    least: int = 1
    """Fewest units of a group."""

    def __post_init__(self) -> None:
        for name in BUDGETS:
            value = getattr(self, name, None)
            if value is not None and not _is_positive(value):
                raise SpecMismatch(f"{name}: {value!r} is no budget; give a finite number above 0")

    @property
    def rounding(self) -> Rounding:
        """Both in one record; raises `SpecMismatch` for what are no numbers of units."""
        return Rounding(self.multiple_of, self.least)

    @abstractmethod
    def of_groups(self, case: GroupSizes) -> dict[NamedGroup, int]:
        """How many units each group of a network's graph keeps.

        Args:
            case: The groups, and what the network costs with fewer units.

        Returns:
            Units that stay, for each group.
        """

    def at(self, ratio: float) -> Ratio:
        """A share of all blocks, rounded in this way."""
        return Ratio(ratio, multiple_of=self.multiple_of, least=self.least)


@dataclass(frozen=True)
class Ratio(Rounded):
    """A share of what it was: one for all blocks, or by pattern of their paths (all of it where none matches)."""

    ratio: float | Mapping[str, float]

    def __call__(self, network: nn.Module, blocks: Sequence[NetworkBlock], batches: Iterable[Inputs]) -> Chosen:
        self._check_patterns([block.path for block in blocks])
        return {block.entrance: self.sizes(block) for block in blocks}

    def of_groups(self, case: GroupSizes) -> dict[NamedGroup, int]:
        self._check_patterns([group.path for group in case.groups])
        return {group: case.near(group, len(group) * self._share(group.path), self.rounding) for group in case.groups}

    def sizes(self, block: NetworkBlock) -> dict[str, int]:
        """The sizes of one block's groups; at least one unit of each.

        Args:
            block: A block of the network.

        Returns:
            The size of each group of its hidden units.
        """
        ratio, rounding = self._share(block.path), self.rounding
        return {
            group.name: rounding(group.size, group.size * ratio, group.width > 1)
            for group in block.adapter.spec.symmetries
        }

    def _check_patterns(self, paths: Sequence[str]) -> None:
        for pattern in self.ratio if isinstance(self.ratio, Mapping) else ():
            if not any(matches(path, pattern) for path in paths):
                raise SpecMismatch(f'ratio: no block has a path that matches "{pattern}"; there are {some_of(paths)}')

    def _share(self, path: str) -> float:
        rules = self.ratio if isinstance(self.ratio, Mapping) else {"*": self.ratio}
        ratio = next((value for pattern, value in rules.items() if matches(path, pattern)), 1.0)
        if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 < ratio <= 1:
            raise SpecMismatch(f"ratio: {ratio!r} is no share of the hidden units; give a number above 0, up to 1")
        return float(ratio)


@dataclass(frozen=True)
class Budget(Rounded):
    """The largest ratio, the same for all blocks, with which the network stays within a number of parameters."""

    parameters: int

    def __call__(self, network: nn.Module, blocks: Sequence[NetworkBlock], batches: Iterable[Inputs]) -> Chosen:
        full_size = parameters(network)

        def size(ratio: float) -> int:
            return full_size - sum(saved(block, self.at(ratio).sizes(block)) for block in blocks)

        return self.at(within(self.parameters, size, "parameters"))(network, blocks, batches)

    def of_groups(self, case: GroupSizes) -> dict[NamedGroup, int]:
        rounding = self.rounding
        ratio = within(self.parameters, lambda share: case.parameters(case.share(share, rounding)), "parameters")
        return case.share(ratio, rounding)


@dataclass(frozen=True)
class FlopBudget(Rounded):
    """The largest ratio, the same for all blocks, with which one example stays within a number of operations.

    As PyTorch counts them: those of convolutions and matrix products, a multiply-add being two. Needs inputs.
    """

    flops: int

    def __call__(self, network: nn.Module, blocks: Sequence[NetworkBlock], batches: Iterable[Inputs]) -> Chosen:
        batch = _first(batches, "operations are counted")
        shapes = shapes_entering(network, [block.entrance for block in blocks], batch)
        full_size = costs(network, batch)["flops"]
        source = {block.entrance: flops(block.adapter, shapes[block.entrance]) for block in blocks}

        def size(ratio: float) -> int:
            operations = full_size
            for block in blocks:
                narrowed = block.adapter.with_sizes(self.at(ratio).sizes(block))
                operations += flops(narrowed, shapes[block.entrance]) - source[block.entrance]
            return operations

        return self.at(within(self.flops, size, "operations"))(network, blocks, batches)

    def of_groups(self, case: GroupSizes) -> dict[NamedGroup, int]:
        rounding = self.rounding
        ratio = within(self.flops, lambda share: case.flops(case.share(share, rounding)), "operations", STEPS)
        return case.share(ratio, rounding)


@dataclass(frozen=True)
class LatencyBudget(Rounded):
    """The largest ratio, the same for all blocks, with which the first batch of inputs stays within a number of
    milliseconds, where the network is: the median of some passes, so never quite the same twice. Needs inputs."""

    milliseconds: float

    def __call__(self, network: nn.Module, blocks: Sequence[NetworkBlock], batches: Iterable[Inputs]) -> Chosen:
        batch = _first(batches, "times are measured")

        def time_at(ratio: float) -> float:
            narrowed = copy.deepcopy(network)
            for block in blocks:
                block.replace(narrowed, block.adapter.with_sizes(self.at(ratio).sizes(block)), None)
            return latency(narrowed, batch)

        return self.at(within(self.milliseconds, time_at, "milliseconds", STEPS))(network, blocks, batches)

    def of_groups(self, case: GroupSizes) -> dict[NamedGroup, int]:
        rounding = self.rounding
        ratio = within(self.milliseconds, lambda r: case.milliseconds(case.share(r, rounding)), "milliseconds", STEPS)
        return case.share(ratio, rounding)


def _first(batches: Iterable[Inputs], purpose: str) -> Inputs:
    batch = next(iter(batches), None)
    if batch is None:
        raise SpecMismatch(f"{purpose} on an example; give calibration inputs")
    return batch


def within(budget: float, size: Callable[[float], float], measure: str, steps: int = 30) -> float:
    """The largest ratio whose size is within a budget.

    Args:
        budget: The largest size.
        size: The size at a ratio.
        measure: The unit of both, for messages.
        steps: Bisections.

    Raises:
        SpecMismatch: even the smallest ratio is too large.
    """
    ratio = largest(lambda share: size(share) <= budget, steps)
    if ratio is None:
        raise SpecMismatch(
            f"a network of {budget:,} {measure} cannot be made of this one: with the fewest units in every block "
            f"{round(size(1e-9), 3):,} are left"
        )
    return ratio


def saved(block: NetworkBlock, sizes: Mapping[str, int]) -> int:
    """Parameters that a block loses with these sizes of its groups."""
    return block.adapter.spec.parameters - block.adapter.with_sizes(sizes).spec.parameters


def largest(fits: Callable[[float], bool], steps: int = 30) -> float | None:
    """The largest share up to 1 that fits, by bisection; None where nothing above 0 does.

    Args:
        fits: Whether a share fits; below one that fits, all do.
        steps: Bisections.
    """
    low, high = 1e-9, 1.0
    if fits(high):
        return high
    if not fits(low):
        return None
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
