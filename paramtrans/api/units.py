"""What a translator sees of a group of units of a network: weights that they stand in, and what reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Reading:
    """A layer that reads the units, as far as it reads them."""

    gram: Tensor
    """Gram matrix of the units' values, unit by unit and as many of each, `[values, values]`, in double precision.

    Other values that the layer reads are taken out of it and of the two below: what they can make up for counts as
    nothing."""
    cross: Tensor
    """Products of the values with what the layer gives, `[values, outputs]`."""
    power: Tensor
    """Square of what the layer gives, `[outputs]`."""
    weight: Tensor
    """What the layer, with a BatchNorm behind it, multiplies these values by, `[values, outputs]`."""
    doubt: float | None = None
    """How far the Gram matrix is from what it would be of many examples: its variance as two halves of the examples
    say it, with each value times the norm of its weights. None: there were fewer than eight examples."""


@dataclass(frozen=True)
class UnitCase:
    """A group of units, of which some are to stay."""

    weights: tuple[Tensor, ...]
    """The part of each weight that belongs to each unit, `[units, values]`."""
    count: int
    """How many units are to stay."""
    readings: tuple[Reading, ...] = ()
    """The layers that read the units; none where there are no inputs."""
    cells: Tensor | None = None
    """`[units]`: where as many units have to stay in each cell, the cell of each."""

    def __len__(self) -> int:
        return len(self.weights[0])

    def best(self, scores: Tensor) -> Tensor:
        """Numbers of the `count` units of highest score `[units]`, in order; equally many of each cell."""
        import torch

        order = scores.argsort(descending=True, stable=True)
        if self.cells is None:
            return order[: self.count].sort().values
        count = self.count // len(self.cells.unique())
        return torch.cat([order[self.cells[order] == cell][:count] for cell in self.cells.unique()]).sort().values

    def strengths(self) -> Tensor:
        """The product of the norms of each unit's weights: `[units]`."""
        import torch

        return torch.stack([weight.double().norm(dim=1) for weight in self.weights]).prod(0)
