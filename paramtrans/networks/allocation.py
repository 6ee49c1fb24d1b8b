"""Widths by measured loss: where hidden units are least important, most of them go."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from paramtrans.errors import SpecMismatch
from paramtrans.evaluation.costs import parameters
from paramtrans.networks.blocks.finding import NetworkBlock
from paramtrans.networks.forward.activations import Inputs, call
from paramtrans.networks.forward.modes import to_eval
from paramtrans.networks.forward.outputs import NO_TENSORS, tensors_in
from paramtrans.networks.graph.groups import NamedGroup
from paramtrans.networks.translate import translate
from paramtrans.networks.units.allocation import allocate
from paramtrans.networks.units.chain import unit_chain
from paramtrans.networks.units.steps import Step, cheapest
from paramtrans.networks.units.widths import GroupSizes
from paramtrans.networks.widths import Chosen, Rounded, largest, saved
from paramtrans.plugins.registry import Registry


@dataclass(frozen=True)
class Allotment(Rounded):
    """Within a budget, the widths whose errors, each block translated alone, have the least sum.

    Every block is translated once for each of `shares`; with two batches of inputs or more, every other one is kept out
    to measure the error on. For groups of units, errors are those on the examples that nothing is fitted to. As a rule
    for `translate(widths=…)`:

    >>> smaller = translate(network, widths=Allotment(parameters=1_000_000), calibrate=batches)  # doctest: +SKIP
    """

    parameters: int | None = None
    """What the network may have; or one of the other budgets, for groups of units."""
    translator: str | Path = "refit"
    options: Mapping[str, Any] = field(default_factory=dict)
    shares: tuple[float, ...] = (0.25, 0.5, 0.75)
    """Of the hidden units; a block may also stay as it is."""
    registry: Registry | None = None
    """Where translators are looked up: by default where `translate` does."""
    flops: int | None = field(default=None, kw_only=True)
    """Operations that one example may take."""
    milliseconds: float | None = field(default=None, kw_only=True)
    """How long the first batch of inputs may take."""

    def with_registry(self, registry: Registry) -> Allotment:
        """The same rule, which looks up translators here unless it has a registry of its own.

        Args:
            registry: The plugins.

        Returns:
            A rule.
        """
        return self if self.registry else replace(self, registry=registry)

    def __call__(self, network: nn.Module, blocks: Sequence[NetworkBlock], batches: Iterable[Inputs]) -> Chosen:
        batch_list = list(batches)
        if not batch_list:
            raise SpecMismatch("what blocks lose is measured on inputs; give calibration inputs")
        steps = {block.entrance: self._steps(network, block, batch_list) for block in blocks}
        budget = self.parameters
        if budget is None:
            raise SpecMismatch(
                "an allotment to blocks keeps a budget of parameters; one of operations or milliseconds takes "
                'by="units"'
            )
        over = parameters(network) - budget
        chosen = cheapest(list(steps.values()), over)
        if chosen is None:
            most_saved = sum(max(step.saved for step in block_steps) for block_steps in steps.values())
            raise SpecMismatch(
                f"a network of {budget:,} parameters cannot be made of this one with these shares: "
                f"{parameters(network) - most_saved:,} are left"
            )
        unspent = sum(step.saved for step in chosen) - over
        return {block.entrance: sizes for block, sizes in fill_budget(blocks, chosen, unspent)}

    def of_groups(self, case: GroupSizes) -> dict[NamedGroup, int]:
        """How many units each group of a network's graph keeps.

        Args:
            case: The groups, and what the network costs with fewer units.

        Returns:
            Units that stay, for each group.

        Raises:
            SpecMismatch: there is not exactly one budget, or it cannot be kept with these shares.
        """
        budgets = {
            measure: value
            for measure in ("parameters", "flops", "milliseconds")
            if (value := getattr(self, measure)) is not None
        }
        if len(budgets) != 1:
            raise SpecMismatch("an allotment keeps one budget: of parameters, of flops, or of milliseconds")
        [(measure, budget)] = budgets.items()
        if self.registry is None:
            raise SpecMismatch("Allotment: says where its translator is known (`registry`), or is given to translate")
        [translator] = unit_chain([(self.translator, self.options)], self.registry)
        return allocate(case, translator, budget, measure, self.shares, self.rounding)

    def _steps(self, network: nn.Module, block: NetworkBlock, batches: list[Inputs]) -> list[Step]:
        """From all units to fewer."""
        calibrate, held_out = batches[::2], batches[1::2] or batches
        block_steps = [Step(block.sizes, 0, 0.0)]
        for share in sorted(self.shares, reverse=True):
            sizes = self.at(share).sizes(block)
            settings: dict[str, Any] = {"widths": _Only(block.entrance, sizes), "blocks": block.path or "*"}
            settings["registry"] = self.registry
            with _unwarned():
                translated = translate(network, self.translator, calibrate=calibrate, options=self.options, **settings)
            block_steps.append(Step(sizes, saved(block, sizes), output_error(translated, network, held_out)))
        return block_steps


@dataclass(frozen=True)
class _Only:
    """One block at these sizes, all others as they are."""

    entrance: str
    sizes: Mapping[str, int]

    def __call__(self, network: nn.Module, blocks: Sequence[NetworkBlock], batches: Iterable[Inputs]) -> Chosen:
        return {b.entrance: dict(self.sizes) if b.entrance == self.entrance else b.sizes for b in blocks}


@contextmanager
def _unwarned() -> Iterator[None]:
    """Without warnings of what was only tried."""
    logger = logging.getLogger(translate.__module__)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def fill_budget(
    blocks: Sequence[NetworkBlock], chosen: Sequence[Step], unspent: int
) -> Iterator[tuple[NetworkBlock, dict[str, int]]]:
    """Widen blocks with what is left of a budget, those first that lose most, up to their full width.

    Args:
        blocks: The blocks.
        chosen: The step of each.
        unspent: Parameters that are left of the budget.

    Yields:
        Each block with its sizes.
    """
    sizes = [dict(step.sizes) for step in chosen]
    for number in sorted(range(len(blocks)), key=lambda number: chosen[number].error, reverse=True):
        block, step = blocks[number], chosen[number]

        def wider(share: float, block: NetworkBlock = block, step: Step = step) -> dict[str, int]:
            return {name: size + int(share * (block.sizes[name] - size)) for name, size in step.sizes.items()}

        def costs(share: float, block: NetworkBlock = block, step: Step = step, wider: Any = wider) -> int:
            return step.saved - saved(block, wider(share))

        share = largest(lambda share, costs=costs, limit=unspent: costs(share) <= limit)  # type: ignore[misc]
        if share is not None:
            sizes[number], unspent = wider(share), unspent - costs(share)
    yield from zip(blocks, sizes, strict=True)


@torch.no_grad()
def output_error(smaller: nn.Module, original: nn.Module, batches: Iterable[Inputs]) -> float:
    """Squared error of one network's output, relative to the square of the other's.

    Args:
        smaller: The network that is measured.
        original: The network that it is compared with.
        batches: Inputs of both.

    Raises:
        SpecMismatch: a network gives no tensors.
    """
    squared = power = 0.0
    for batch in batches:
        outputs = [tensors_in(call(to_eval(network), batch)) for network in (smaller, original)]
        if not all(outputs):
            raise SpecMismatch(NO_TENSORS)
        output, expected = (tensors[0].double() for tensors in outputs)
        squared, power = squared + float((output - expected).square().sum()), power + float(expected.square().sum())
    return squared / max(power, 1e-30)
