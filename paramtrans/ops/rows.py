"""What a layer reads, row by row: of a convolution, the values under its kernel at each position."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.functional import unfold

VALUES_AT_ONCE = 2**23
"""Values of one piece of the equations: 64 MiB in double precision."""


def rows(layer: nn.Module, entered: Tensor, wanted: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """What each output of a layer reads and should be, in pieces.

    Values run unit by unit: a convolution reads its whole kernel of one unit, then of the next.

    Args:
        layer: A Linear, or a convolution of one group with padding in numbers.
        entered: What enters it, `[models, n, ...]`.
        wanted: What should leave it, of that shape.

    Yields:
        `[models, rows, values]` and `[models, rows, outputs]`.
    """
    if isinstance(layer, nn.Linear):
        yield entered.flatten(1, -2), wanted.flatten(1, -2)
        return
    assert isinstance(layer, nn.Conv2d)
    kernel, padding = layer.kernel_size, layer.padding
    assert isinstance(padding, tuple)
    values = len(entered) * kernel[0] * kernel[1] * entered.shape[2] * wanted[0, 0, 0].numel()
    at_once = max(1, VALUES_AT_ONCE // values)
    for entering, leaving in zip(entered.split(at_once, dim=1), wanted.split(at_once, dim=1), strict=True):
        patches = unfold(entering.flatten(0, 1), kernel, layer.dilation, padding, layer.stride)
        yield patches.mT.reshape(len(entered), -1, patches.shape[1]), leaving.flatten(3).mT.flatten(1, 2)
