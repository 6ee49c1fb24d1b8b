"""One convolution in place of whatever computes one, such as branches that are added."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import PositiveInt, field_validator
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from paramtrans.api.adapter import BlockAdapter, BlockOptions, Part
from paramtrans.api.options import Trials
from paramtrans.api.stacking import Params
from paramtrans.errors import SpecMismatch
from paramtrans_blocks.basic import odd

TOLERANCE = 1e-4
"""Largest difference between what the part gives and what the convolution does, relative to the largest feature."""


class MergedConvOptions(BlockOptions):
    """Sizes of a convolution, with a ReLU behind it or without."""

    out: PositiveInt | None = None
    """Channels that leave it; as many as enter it by default."""
    kernel: PositiveInt = 3
    """Kernel side, odd."""
    stride: PositiveInt = 1
    """By what it divides height and width."""
    final: Literal["relu"] | None = None
    """Activation behind it."""

    @field_validator("kernel")
    @classmethod
    def _odd(cls, kernel: int) -> int:
        return odd(kernel)


class MergedConv(BlockAdapter):
    """A k×k convolution [, ReLU], which sums of convolutions, BatchNorms and the input are (RepVGG: Ding et al. 2021,
    arXiv 2101.03697, section 3.3).

    What a part gives for single ones tells the kernel, whatever its layers; the block is then the part. Where the part
    computes no convolution, no such block takes its place.
    """

    Options: ClassVar[type[BlockOptions]] = MergedConvOptions
    options: MergedConvOptions
    trials: ClassVar[Trials] = ({}, {"kernel": 1, "final": "relu"})

    def module(self) -> nn.Module:
        options = self.options
        layer = nn.Conv2d(
            options.channels, options.out or options.channels, options.kernel, options.stride, options.kernel // 2
        )
        return nn.Sequential(layer, nn.ReLU()) if options.final else nn.Sequential(layer)

    @classmethod
    def options_for(cls, part: Part) -> Mapping[str, Any]:
        merged = merged_of(part)
        if merged is None:
            raise SpecMismatch("what it computes is no one convolution, with a ReLU behind it or without")
        return merged[0]

    def warm_start(self, part: Part) -> Params | None:
        merged = merged_of(part)
        if merged is None or self.options.model_dump() != MergedConvOptions(**merged[0]).model_dump():
            return None
        return {name: tensor[None] for name, tensor in merged[1].items()}


@torch.no_grad()
def merged_of(part: Part) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """The convolution that a part is.

    Args:
        part: The part.

    Returns:
        Options and tensors of a `MergedConv`; None where it is none.
    """
    entering, leaving = part.entering, part.leaving
    if part.run is None or entering.ndim != 4 or leaving.ndim != 4 or entering.shape[2] % leaving.shape[2]:
        return None
    stride = entering.shape[2] // leaving.shape[2]
    run, rectified = _before_relu(part.run, entering)
    bias = run(torch.zeros_like(entering[:1]))[0, :, leaving.shape[2] // 2, leaving.shape[3] // 2]
    kernel = _kernel(lambda x: run(x) - bias[:, None, None], entering, leaving.shape[2:], stride)
    options = {
        "channels": entering.shape[1],
        "out": leaving.shape[1],
        "kernel": kernel.shape[-1],
        "stride": stride,
        "final": "relu" if rectified else None,
    }
    params = {"0.weight": kernel.contiguous(), "0.bias": bias}
    block = MergedConv(MergedConvOptions(**options)).module().to(entering)
    block.load_state_dict(params)
    made = block(entering)
    alike = made.shape == leaving.shape and (made - leaving).abs().max() <= TOLERANCE * leaving.abs().max()
    return (options, params) if alike else None


def _kernel(run: Callable[[Tensor], Tensor], entering: Tensor, size: Any, stride: int) -> Tensor:
    """Weight `[out, in, k, k]` of a convolution without bias, read off ones at single places."""
    channels, height, width = entering.shape[1:]
    reach = (min(height, width) - 1) // 2
    weight: Tensor | None = None
    centre = (size[0] // 2 * stride, size[1] // 2 * stride)
    for down in range(stride):
        for right in range(stride):
            place = (min(centre[0] + down, height - 1), min(centre[1] + right, width - 1))
            ones = entering.new_zeros(channels, channels, height, width)
            ones[torch.arange(channels), torch.arange(channels), place[0], place[1]] = 1
            given = run(ones)  # [in, out, ...]
            weight = (
                given.new_zeros(given.shape[1], channels, 2 * reach + 1, 2 * reach + 1) if weight is None else weight
            )
            for row in range(size[0]):
                for column in range(size[1]):
                    at = (place[0] - stride * row + reach, place[1] - stride * column + reach)
                    if all(0 <= index <= 2 * reach for index in at):
                        weight[:, :, at[0], at[1]] = given[:, :, row, column].mT
    assert weight is not None
    largest = weight.abs().max()
    while reach and bool((_frame(weight) <= 1e-6 * largest).all()):
        weight, reach = weight[:, :, 1:-1, 1:-1], reach - 1
    return weight


def _frame(weight: Tensor) -> Tensor:
    """The outermost values of kernels."""
    rows, columns = weight[:, :, [0, -1]].abs().flatten(), weight[:, :, :, [0, -1]].abs().flatten()
    return torch.cat([rows, columns])


def _before_relu(run: Callable[[Tensor], Tensor], entering: Tensor) -> tuple[Callable[[Tensor], Tensor], bool]:
    """A part without the ReLU at its end, if it has one, and whether it does."""
    watch = _Watch()
    with watch:
        leaving = run(entering[:1])
    if watch.last is None or not torch.equal(watch.last[1][:1], leaving):
        return run, False

    def before(features: Tensor) -> Tensor:
        pieces = []
        for example in features.split(1):
            with _Watch() as watch:
                run(example)
            assert watch.last is not None
            pieces.append(watch.last[0][:1])
        return torch.cat(pieces)

    return before, True


class _Watch(TorchFunctionMode):
    """Notes what the last ReLU takes and gives."""

    def __init__(self) -> None:
        super().__init__()
        self.last: tuple[Tensor, Tensor] | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "").strip("_") != "relu":
            return func(*args, **(kwargs or {}))
        taken = (args[0] if args else (kwargs or {})["input"]).clone()
        result = func(*args, **(kwargs or {}))
        self.last = (taken, result)
        return result
