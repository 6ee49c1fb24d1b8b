"""Two convolutions without normalisation, the paper's conv target."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import PositiveInt, field_validator
from torch import Tensor, nn

from paramtrans.api.adapter import BlockAdapter, BlockOptions
from paramtrans.api.block_module import ReadoutModule
from paramtrans.api.options import Trials
from paramtrans.api.specs import SymmetryGroup, SymmetryMember
from paramtrans_blocks.basic import conv_stream, hidden_group, odd


class ConvOptions(BlockOptions):
    """Sizes of a conv block."""

    hidden: PositiveInt
    """Channels between the convolutions."""
    kernel: PositiveInt = 3
    """Kernel side, odd."""
    bias: bool = False
    """Whether the convolutions have biases. The paper's have none."""

    @field_validator("kernel")
    @classmethod
    def _odd(cls, kernel: int) -> int:
        return odd(kernel)


class Conv(BlockAdapter):
    """conv, ReLU, conv, + input, ReLU; no normalisation."""

    Options: ClassVar[type[BlockOptions]] = ConvOptions
    options: ConvOptions
    trials: ClassVar[Trials] = ({"hidden": 2}, {"hidden": 1, "kernel": 5}, {"hidden": 5, "kernel": 1, "bias": True})
    rectified: ClassVar[bool] = True
    readout: ClassVar[str | None] = "conv2"

    @property
    def token_width(self) -> int:
        return self.options.kernel**2

    def module(self) -> nn.Module:
        return ConvModule(self.options.channels, self.options.hidden, self.options.kernel, self.options.bias)

    def symmetries(self) -> tuple[SymmetryGroup, ...]:
        return (hidden_group(self.options.hidden, self.options.bias),)

    def stream(self) -> tuple[SymmetryMember, ...]:
        return conv_stream(self.options.bias)


class ConvModule(nn.Module, ReadoutModule):
    """`[batch, channels, h, w]` → the same shape."""

    def __init__(self, channels: int, hidden: int, kernel: int, bias: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, hidden, kernel, padding=kernel // 2, bias=bias)
        self.conv2 = nn.Conv2d(hidden, channels, kernel, padding=kernel // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.branch(x) + x)

    def branch(self, x: Tensor) -> Tensor:
        branch: Tensor = self.conv2(self.features(x))
        return branch

    def features(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv1(x))
