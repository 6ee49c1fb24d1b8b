"""Two convolutions, each as two thinner ones: low-rank factorisation."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import PositiveInt, field_validator
from torch import Tensor, nn

from paramtrans.api.adapter import BlockAdapter, BlockOptions
from paramtrans.api.block_module import BranchModule
from paramtrans.api.options import Trials
from paramtrans.api.specs import SymmetryGroup, SymmetryMember
from paramtrans_blocks.basic import odd


class LowRankOptions(BlockOptions):
    """Sizes of a low-rank block."""

    rank: PositiveInt
    """Channels between the two halves of each convolution."""
    hidden: PositiveInt | None = None
    """Channels between the convolutions; the block's own channels by default."""
    kernel: PositiveInt = 3
    """Kernel side, odd."""
    bias: bool = True
    """Whether each convolution has a bias, in its second half."""

    @field_validator("kernel")
    @classmethod
    def _odd(cls, kernel: int) -> int:
        return odd(kernel)


class LowRank(BlockAdapter):
    """conv, ReLU, conv, + input, ReLU, where each conv is one of the kernel to `rank` channels, then a 1×1."""

    Options: ClassVar[type[BlockOptions]] = LowRankOptions
    options: LowRankOptions
    trials: ClassVar[Trials] = ({"rank": 2}, {"rank": 1, "hidden": 2, "bias": False}, {"rank": 5, "kernel": 5})
    rectified: ClassVar[bool] = True

    @property
    def hidden(self) -> int:
        """Channels between the convolutions."""
        return self.options.hidden or self.options.channels

    @property
    def token_width(self) -> int:
        return self.options.kernel**2

    def module(self) -> nn.Module:
        options = self.options
        return LowRankModule(options.channels, self.hidden, options.rank, options.kernel, options.bias)

    def symmetries(self) -> tuple[SymmetryGroup, ...]:
        hidden = [SymmetryMember("wide1.weight", 0, 1), SymmetryMember("thin2.weight", 1, -1)]
        if self.options.bias:
            hidden.insert(1, SymmetryMember("wide1.bias", 0, 1))
        halves = (SymmetryGroup(f"rank{i}", self.options.rank, _half(i), rescale=True) for i in (1, 2))
        return (SymmetryGroup("hidden", self.hidden, tuple(hidden), rescale=True), *halves)

    def stream(self) -> tuple[SymmetryMember, ...]:
        weights = (SymmetryMember("thin1.weight", 1), SymmetryMember("wide2.weight", 0))
        return (*weights, SymmetryMember("wide2.bias", 0)) if self.options.bias else weights


def _half(number: int) -> tuple[SymmetryMember, ...]:
    return (SymmetryMember(f"thin{number}.weight", 0, 1), SymmetryMember(f"wide{number}.weight", 1, -1))


class LowRankModule(nn.Module, BranchModule):
    """`[batch, channels, h, w]` → the same shape."""

    def __init__(self, channels: int, hidden: int, rank: int, kernel: int, bias: bool) -> None:
        super().__init__()
        self.thin1 = nn.Conv2d(channels, rank, kernel, padding=kernel // 2, bias=False)
        self.wide1 = nn.Conv2d(rank, hidden, 1, bias=bias)
        self.thin2 = nn.Conv2d(hidden, rank, kernel, padding=kernel // 2, bias=False)
        self.wide2 = nn.Conv2d(rank, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.branch(x) + x)

    def branch(self, x: Tensor) -> Tensor:
        branch: Tensor = self.wide2(self.thin2(torch.relu(self.wide1(self.thin1(x)))))
        return branch
