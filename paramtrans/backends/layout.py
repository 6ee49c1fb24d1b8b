"""What a fast layout offers to a lowered module, and the sizes that its convolutions are given."""

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn


@dataclass(frozen=True)
class ConvSpec:
    """The sizes of a convolution and what follows it in the same pass."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    normed: bool = False
    relu: bool = False
    pool: tuple[int, ...] | None = None  # kernel, stride and padding, rows before columns
    batch_statistics: bool = False
    epsilon: float = 0.0
    momentum: float = 0.0
    record: bool = True  # whether gradients may be asked for


class Layout(Protocol):
    """What a fast layout does differently from another."""

    def conv(self, *args: Any) -> Tensor:
        """Values, what is added or None, weight, bias, the norm's four, the spec, and memory; see `ConvUnit`."""
        ...

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None, memory: Any) -> Tensor: ...

    def attend(self, q: Tensor, k: Tensor, v: Tensor, memory: Any) -> Tensor: ...

    def normalise(
        self, norm: Any, prefix: str, params: dict[str, Tensor], training: bool | None, x: Tensor
    ) -> Tensor: ...

    def flatten(self, x: Tensor) -> Tensor: ...

    def to_images(self, layer: nn.Module, x: Tensor) -> Tensor:
        """A layer without parameters on each image."""
        ...
