"""What a translator sees of a group of units of a network: weights that they stand in, and what reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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
    summed: tuple[bool, ...] = ()
    """Whether each of the `weights` is that of a layer which sums over the units; others write them."""
    width: int = 1
    """Most indices that one unit has of an axis: more than one for heads, and for groups of channels."""

    def __len__(self) -> int:
        return len(self.weights[0])

    def best(self, scores: Tensor) -> Tensor:
        """The units of highest score; equally many of each cell, where there are cells.

        Args:
            scores: One for each unit, `[units]`.

        Returns:
            Numbers of `count` units, `[count]`, in order.
        """
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


Entered = Sequence["Tensor"]
"""What enters a piece of a network for one batch of inputs."""


@dataclass(frozen=True)
class UnitPiece:
    """A group of units of a smaller network as it was written, with the piece of the network from the layers that write
    the units to those that read them; or a block of another architecture, which is a piece by itself."""

    path: str
    """Of the group, or of the part that the block takes the place of."""
    params: Mapping[str, Tensor]
    """Trained tensors of the piece: of the layers that write the units, of those that read them, and of normalisation
    between and directly behind. Names are those in the network, of a block those in it."""
    run: Callable[[Mapping[str, Tensor], Entered], tuple[Tensor, ...]]
    """The piece with other tensors in place of `params`, differentiable: what leaves each layer that reads the units,
    behind the normalisation, the sum with a skip connection and the activation that directly follow."""
    batches: Iterable[tuple[Entered, tuple[Tensor, ...]]]
    """What enters the piece in the smaller network, with what the same layers give in the untouched one; the same each
    time that it is gone through. Networks are run where it is first asked for."""
    seed: int
    """For whatever is drawn."""
