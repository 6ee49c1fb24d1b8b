"""A linear map of each position, added to it, in place of a whole block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from paramtrans.api.adapter import BlockAdapter, BlockOptions, Part
from paramtrans.api.options import Trials
from paramtrans.api.stacking import Params
from paramtrans.errors import SpecMismatch
from paramtrans.ops.halves import Halves
from paramtrans.ops.views import whole


class LinearMapOptions(BlockOptions):
    """Size of a linear map, and where its channels are."""

    last: bool = True
    """Whether features are `[batch, ..., channels]`; else `[batch, channels, ...]`."""


class LinearMap(BlockAdapter):
    """`x → x + W x + b`, the same at each position; related: ReplaceMe (2025, arXiv 2505.02819).

    In place of a block that gives what it takes, in shape, it starts from the ridge regression of what the block adds
    on what enters it, with the ridge by two-fold cross-validation. The ridge pulls it towards leaving the block out.
    """

    Options: ClassVar[type[BlockOptions]] = LinearMapOptions
    options: LinearMapOptions
    trials: ClassVar[Trials] = ({}, {"last": False})

    @property
    def channels_last(self) -> bool:  # type: ignore[override]
        return self.options.last

    @property
    def positionwise(self) -> bool:  # type: ignore[override]
        return self.options.last

    def module(self) -> nn.Module:
        return LinearMapModule(self.options)

    @classmethod
    def options_for(cls, part: Part) -> Mapping[str, Any]:
        """Channels on the axis of which the part has more tensors. Where that leaves it open they are on the last, but
        behind the examples where the part has kernels."""
        shape = part.entering.shape
        if shape != part.leaving.shape:
            raise SpecMismatch(f"it makes {list(part.leaving.shape)} of {list(shape)}, not features of the same shape")
        first, last = (
            sum(size in tensor.shape for tensor in part.module.parameters()) for size in (shape[1], shape[-1])
        )
        kernels = any(tensor.ndim > 2 for tensor in part.module.parameters())
        of_last = last > first or (last == first and not kernels)
        return {"channels": shape[-1 if of_last else 1], "last": of_last}

    def warm_start(self, part: Part) -> Params | None:
        entering, added = (
            features if self.options.last else features.movedim(1, -1)
            for features in (part.entering, part.leaving - part.entering)
        )
        channels, halves = self.options.channels, Halves(len(entering))
        halves.add(nn.Linear(channels, channels, device="meta"), entering[None], added[None])
        start = entering.new_zeros(1, channels + 1, channels, dtype=torch.double)
        weights = halves.total().ridge(start, halves.ridge(whole, start)).to(entering)
        return {"map.weight": weights[:, :-1].mT.contiguous(), "map.bias": weights[:, -1]}


class LinearMapModule(nn.Module):
    """A linear map, added to what enters it."""

    def __init__(self, options: LinearMapOptions) -> None:
        super().__init__()
        self.last = options.last
        self.map = nn.Linear(options.channels, options.channels)

    def forward(self, x: Tensor) -> Tensor:
        """Features → features of the same shape."""
        mapped: Tensor = self.map(x) if self.last else self.map(x.movedim(1, -1)).movedim(-1, 1)
        return x + mapped
