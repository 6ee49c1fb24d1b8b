"""Rules for how many hidden units each block of a network keeps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import nn

from paramtrans.api.options import BaseOptions, Configurable
from paramtrans.errors import SpecMismatch
from paramtrans.evaluation.costs import flops, parameters
from paramtrans.networks.activations import Inputs, shapes_entering
from paramtrans.networks.blocks import NetworkBlock, costs, matches, some_paths
from paramtrans.plugins.registry import Registry

Chosen = dict[str, dict[str, int]]
"""For each block, by the path of its entrance, the size of each group of its hidden units."""


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
    """A rule, with the caller's own plugins where it looks up any."""
    return rule.with_registry(registry) if isinstance(rule, LooksUp) else rule


@dataclass(frozen=True)
class Ratio:
    """A share of what it was: one for all blocks, or by pattern of their paths (all of it where none matches)."""

    ratio: float | Mapping[str, float]

    def __call__(self, network: nn.Module, blocks: Sequence[NetworkBlock], batches: Iterable[Inputs]) -> Chosen:
        for pattern in self.ratio if isinstance(self.ratio, Mapping) else ():
            if not any(matches(block.path, pattern) for block in blocks):
                raise SpecMismatch(
                    f'ratio: no block has a path that matches "{pattern}"; there are {some_paths(blocks)}'
                )
        return {block.entrance: self.sizes(block) for block in blocks}

    def sizes(self, block: NetworkBlock) -> dict[str, int]:
        """The sizes of one block's groups; at least one unit of each."""
        rules = self.ratio if isinstance(self.ratio, Mapping) else {"*": self.ratio}
        ratio = next((value for pattern, value in rules.items() if matches(block.path, pattern)), 1.0)
        if not isinstance(ratio, (int, float)) or not 0 < ratio <= 1:
            raise SpecMismatch(f"ratio: {ratio!r} is no share of the hidden units; give a number above 0, up to 1")
        return {name: max(1, round(size * ratio)) for name, size in block.sizes.items()}


@dataclass(frozen=True)
class Budget:
    """The largest ratio, the same for all blocks, with which the network has no more than so many parameters."""

    parameters: int

    def __call__(self, network: nn.Module, blocks: Sequence[NetworkBlock], batches: Iterable[Inputs]) -> Chosen:
        whole = parameters(network)

        def size(ratio: float) -> int:
            return whole - sum(saved(block, Ratio(ratio).sizes(block)) for block in blocks)

        return Ratio(_within(self.parameters, size, "parameters"))(network, blocks, batches)


@dataclass(frozen=True)
class FlopBudget:
    """The largest ratio, the same for all blocks, with which one example takes no more than so many operations.

    As PyTorch counts them: those of convolutions and matrix products, a multiply-add being two. Needs inputs.
    """

    flops: int

    def __call__(self, network: nn.Module, blocks: Sequence[NetworkBlock], batches: Iterable[Inputs]) -> Chosen:
        batch = next(iter(batches), None)
        if batch is None:
            raise SpecMismatch("operations are counted on an example; give calibration inputs")
        shapes = shapes_entering(network, [block.entrance for block in blocks], batch)
        whole = costs(network, batch)["flops"]
        source = {block.entrance: flops(block.adapter, shapes[block.entrance]) for block in blocks}

        def size(ratio: float) -> int:
            left = whole
            for block in blocks:
                small = block.adapter.with_sizes(Ratio(ratio).sizes(block))
                left += flops(small, shapes[block.entrance]) - source[block.entrance]
            return left

        return Ratio(_within(self.flops, size, "operations"))(network, blocks, batches)


def _within(budget: int, size: Callable[[float], int], what: str) -> float:
    """The largest ratio whose size is within the budget; raises `SpecMismatch` where there is none."""
    ratio = largest(lambda share: size(share) <= budget)
    if ratio is None:
        raise SpecMismatch(
            f"a network of {budget:,} {what} cannot be made of this one: with one unit in every block {size(1e-9):,} "
            "are left"
        )
    return ratio


def saved(block: NetworkBlock, sizes: Mapping[str, int]) -> int:
    """Parameters that a block has fewer of with these sizes."""
    return block.adapter.spec.parameters - block.adapter.with_sizes(sizes).spec.parameters


def largest(fits: Callable[[float], bool], steps: int = 30) -> float | None:
    """The largest share up to 1 that fits, by bisection; None where nothing above 0 does."""
    low, high = 1e-9, 1.0
    if fits(high):
        return high
    if not fits(low):
        return None
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
