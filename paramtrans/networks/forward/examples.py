"""Calibration inputs, and which of them are kept aside to measure on what a translation lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

from paramtrans.errors import SpecMismatch
from paramtrans.networks.forward.activations import Inputs, length, pick_examples
from paramtrans.utils.counts import counted
from paramtrans.utils.distributed import ALONE, ProcessGroup

KEPT_ASIDE, FEW = 8, 32
"""One of `KEPT_ASIDE` examples is kept aside to measure errors on; of fewer than `FEW` none."""
TOO_FEW = (
    "of {total} none can be kept aside to measure on: on others, errors may be many times as large; give {few} or more"
)


@dataclass(frozen=True)
class NumberedBatch:
    """A batch among others."""

    number: int
    begin: int
    """Examples in the batches before it."""
    size: int
    inputs: Inputs


@dataclass(frozen=True)
class Examples:
    """Calibration inputs in batches, which are gone through as often as wanted."""

    batches: Iterable[Inputs]
    processes: ProcessGroup = ALONE
    """Processes that have the same examples, and pass some of the batches each."""

    @property
    def passed_here(self) -> list[NumberedBatch]:
        """The batches that this process passes: all, where it is alone.

        Raises:
            SpecMismatch: there are fewer batches than processes.
        """
        if self.processes.size > len(self.sizes):
            raise SpecMismatch(
                f"calibrate: {self.processes.size} processes share {counted(len(self.sizes), 'batch')}; "
                "give more inputs, or batches of fewer, or take fewer processes"
            )
        begins, share = [0, *accumulate(self.sizes)], self.processes.share(len(self.sizes))
        return [
            NumberedBatch(number, begins[number], self.sizes[number], batch)
            for number, batch in enumerate(self.batches)
            if number in share
        ]

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Examples in each batch."""
        return tuple(length(batch) for batch in self.batches)

    @property
    def first(self) -> Inputs:
        """The first batch."""
        return next(iter(self.batches))

    @property
    def total(self) -> int:
        """Examples in all batches."""
        return sum(self.sizes)

    @property
    def enough(self) -> bool:
        """Whether some are kept aside."""
        return self.total >= FEW

    def aside(self, number: Tensor) -> Tensor:
        """Which examples are kept aside; none where there are few.

        Args:
            number: Numbers of examples, `[n]`.

        Returns:
            `[n]`, of bool.
        """
        if not self.enough:
            return torch.zeros_like(number, dtype=torch.bool)
        return number % KEPT_ASIDE == KEPT_ASIDE - 1

    def fitted(self) -> Iterable[Inputs]:
        """Those that may be fitted to: all where there are few."""
        return _Subset(self, False) if self.enough else self.batches

    def held_out(self) -> Iterable[Inputs]:
        """Those that nothing is fitted to: all where there are few."""
        return _Subset(self, True) if self.enough else self.batches

    def too_few(self) -> str:
        """A warning for where none are kept aside."""
        return TOO_FEW.format(total=counted(self.total, "calibration input"), few=FEW)


@dataclass(frozen=True)
class _Subset:
    """Batches of the examples that are kept aside, or of the others."""

    examples: Examples
    held_out: bool

    def __iter__(self) -> Iterator[Inputs]:
        start = 0
        for batch, size in zip(self.examples.batches, self.examples.sizes, strict=True):
            chosen = (self.examples.aside(torch.arange(start, start + size)) == self.held_out).nonzero()[:, 0]
            start += size
            if len(chosen):
                yield pick_examples(batch, chosen)
