"""What a layer reads, row by row: of a convolution, the values under its kernel at each position."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, unfold

VALUES_AT_ONCE = 2**23
"""Values of one piece of the equations: 64 MiB in double precision."""


ROWS_A_VALUE = 16
"""Rows for each value that is read, at most: more change the solution by less than its error on other examples."""
MOST_ROWS = 2**16
"""Rows that are taken in any case, where there are so many."""


def positions(layer: nn.Module, examples: int) -> int:
    """How many positions of each example are enough for the equations of a layer.

    Args:
        layer: A Linear or a convolution.
        examples: How many there are; 0 where that is not known, so that all positions are taken.
    """
    weight = layer.weight
    assert isinstance(weight, Tensor)
    wanted = max(MOST_ROWS, ROWS_A_VALUE * weight[0].numel())
    return -(-wanted // examples) if examples else 2**62


def rows(
    layer: nn.Module, entered: Tensor, wanted: Tensor, most: int = 2**62, seed: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """What each output of a layer reads and should be, in pieces.

    Values run unit by unit: a convolution reads its whole kernel of one unit, then of the next.

    Args:
        layer: A Linear, or a convolution of one group with padding in numbers.
        entered: What enters it, `[models, n, ...]`.
        wanted: What should leave it, of that shape.
        most: Positions of each example at most; of more, some are drawn, the same for all models.
        seed: What they are drawn by.

    Yields:
        `[models, rows, values]` and `[models, rows, outputs]`.
    """
    if isinstance(layer, nn.Linear):
        if entered.ndim > 3 and entered[0, 0, ..., 0].numel() > most:
            entered, wanted = entered.flatten(2, -2), wanted.flatten(2, -2)
            chosen = _drawn(entered.shape[1], entered.shape[2], most, seed).to(entered.device)
            entered, wanted = (t[:, torch.arange(len(chosen))[:, None], chosen] for t in (entered, wanted))
        yield entered.flatten(1, -2), wanted.flatten(1, -2)
        return
    if isinstance(layer, nn.Conv1d):
        layer, entered, wanted = _of_height_one(layer), entered.unsqueeze(-2), wanted.unsqueeze(-2)
    assert isinstance(layer, nn.Conv2d)
    count = wanted[0, 0, 0].numel()
    values = len(entered) * layer.weight[0].numel() * min(count, most)
    at_once = max(1, VALUES_AT_ONCE // values)
    pieces = zip(entered.split(at_once, dim=1), wanted.split(at_once, dim=1), strict=True)
    for number, (entering, leaving) in enumerate(pieces):
        if count <= most:
            yield _all_patches(layer, entering), leaving.flatten(3).mT.flatten(1, 2)
            continue
        chosen = _drawn(entering.shape[1], count, most, seed + number).to(entering.device)
        picked = leaving.flatten(3).gather(3, chosen[None, :, None].expand(*leaving.shape[:3], -1))
        yield _patches(layer, entering, chosen, leaving.shape[-1]), picked.mT.flatten(1, 2)


def _drawn(examples: int, count: int, most: int, seed: int) -> Tensor:
    """`most` of `count` positions of each example, drawn at random: `[examples, most]`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(examples, count, generator=generator).argsort(dim=1)[:, :most]


def _of_height_one(layer: nn.Conv1d) -> nn.Conv2d:
    """A convolution over signals as one over images of height one, without its values."""
    [kernel], [stride], [padding], [dilation] = layer.kernel_size, layer.stride, _padding(layer), layer.dilation
    channels = (layer.in_channels, layer.out_channels)
    return nn.Conv2d(*channels, (1, kernel), (1, stride), (0, padding), (1, dilation), layer.groups, device="meta")


def _padding(layer: nn.Conv1d | nn.Conv2d) -> tuple[int, ...]:
    assert isinstance(layer.padding, tuple)
    return layer.padding


def _all_patches(layer: nn.Conv2d, entered: Tensor) -> Tensor:
    """What a convolution reads at all positions: `[models, rows, values]`."""
    patches = unfold(entered.flatten(0, 1), layer.kernel_size, layer.dilation, _padding(layer), layer.stride)
    return patches.mT.reshape(len(entered), -1, patches.shape[1])


def _patches(layer: nn.Conv2d, entered: Tensor, chosen: Tensor, width: int) -> Tensor:
    """What a convolution reads at some positions of each example: `[models, rows, values]`.

    Args:
        layer: The convolution.
        entered: What enters it, `[models, n, channels, height, width]`.
        chosen: Numbers of positions, row by row: `[n, positions]`.
        width: Positions in a row.
    """
    above, beside = _padding(layer)
    padded = pad(entered, (beside, beside, above, above))
    lines, columns = (
        at[..., None] * step + torch.arange(size, device=at.device) * apart
        for at, step, size, apart in zip(
            (chosen // width, chosen % width), layer.stride, layer.kernel_size, layer.dilation, strict=True
        )
    )
    example = torch.arange(len(chosen), device=chosen.device).view(-1, 1, 1, 1)
    # [n, positions, kernel, kernel, models, channels]
    patches = padded.movedim((0, 2), (-2, -1))[example, lines[..., :, None], columns[..., None, :]]
    return patches.permute(4, 0, 1, 5, 2, 3).flatten(3).flatten(1, 2)
