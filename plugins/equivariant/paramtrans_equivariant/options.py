"""Options of the equivariant translator."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from paramtrans.api.options import BaseOptions


class EquivariantOptions(BaseOptions):
    """Sizes, what is read beside the block, and the block whose change is learned."""

    layers: PositiveInt = Field(3, le=1000)
    """Layers of attention in each round."""
    width: PositiveInt = 64
    """Values of a cell inside the translator."""
    heads: PositiveInt = 4
    """Attention heads."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of values that a layer drops in training."""
    surroundings: NonNegativeInt = 0
    """Values read of former and latter for each channel, as many as the task declares in `stream` (25 for `mnist`);
    0: the block alone is read."""
    base: Literal["auto", "kept", "default"] = "auto"
    """What the output is added to. `kept`: the strongest units of the source, where both blocks are of one family; the
    output is zero at first. `default`: each tensor's mean in a default initialisation, so that the output starts as
    a default initialisation does. `auto`: `kept` where it is possible."""
    probes: NonNegativeInt = 0
    """Network inputs that the translator has as weights of its own, noise at first. The target's last layer, where its
    adapter names one as `readout`, is then not predicted but solved for on them, by ridge regression."""
    input: tuple[PositiveInt, ...] = ()
    """Shape of a network input, such as [1, 28, 28]; needed with `probes`."""
    ridge: PositiveFloat = 1e-3
    """Strength of that regression's ridge, relative to the mean square of what is read."""
    weigh: bool = False
    """Whether, on these probes, each position counts by how much the network's outputs depend on it."""
    rounds: PositiveInt = Field(1, le=100)
    """How often the block is written. From the second time on the translator also reads the block so far, and the
    gradient of its error on the probes. More than one needs `probes`."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.width % self.heads:
            raise ValueError("width must be a multiple of heads")
        if self.probes and not self.input:
            raise ValueError("probes need input, the shape of a network input")
        if self.rounds > 1 and not self.probes:
            raise ValueError("more than one of rounds needs probes")
        return self
