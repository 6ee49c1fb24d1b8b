"""A linear layer as two block-diagonal ones with a shuffle between them."""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn

from paramtrans.api.adapter import BlockOptions, Part
from paramtrans.api.options import Trials
from paramtrans.api.specs import SymmetryGroup
from paramtrans.api.stacking import Params
from paramtrans_blocks.linear_target import LinearTarget, LinearTargetOptions


class MonarchOptions(LinearTargetOptions):
    """Sizes of a Monarch layer."""

    blocks: PositiveInt = 2
    """Blocks on each diagonal; the layer has about one `blocks`-th of the weights of a dense one, twice."""

    @model_validator(mode="after")
    def _divides(self) -> Self:
        out = self.out or self.channels
        if self.channels % self.blocks or out % self.blocks:
            raise ValueError(f"blocks: {self.channels} and {out} channels are no multiples of {self.blocks}")
        return self


class Monarch(LinearTarget):
    """`x → P L P R x + b` with block-diagonal L and R and a shuffle P (Dao et al. 2022, arXiv 2204.00595, section 3.1).

    Every block of L reads one value of every block of R. In place of a linear layer it starts from the nearest such
    product: the first singular vectors of each piece of the weight (the same, theorem 1).
    """

    Options: ClassVar[type[BlockOptions]] = MonarchOptions
    options: MonarchOptions
    trials: ClassVar[Trials] = ({}, {"blocks": 1, "bias": False})

    def module(self) -> nn.Module:
        return MonarchModule(self.options.channels, self.out, self.options.blocks, self.options.bias)

    def symmetries(self) -> tuple[SymmetryGroup, ...]:
        return ()

    def warm_start(self, part: Part) -> Params | None:
        if not isinstance(part.module, nn.Linear):
            return None
        blocks = self.options.blocks
        # Piece [to, from]: what inputs of block `from` give to outputs of block `to`; of rank one, a column of L times
        # a row of R.
        weight = part.module.weight.detach()
        pieces = weight.view(blocks, self.out // blocks, blocks, -1).transpose(1, 2)
        left, values, right = torch.linalg.svd(pieces, full_matrices=False)
        root = values[..., 0].sqrt()[..., None]
        params = {
            "first": (right[..., 0, :] * root).transpose(0, 1)[None],
            "second": (left[..., :, 0] * root).mT[None],
        }
        if self.options.bias:
            bias = part.module.bias
            params["bias"] = (torch.zeros(self.out).to(weight) if bias is None else bias.detach())[None]
        return {name: params[name].contiguous() for name in self.spec.names}


class MonarchModule(nn.Module):
    """`[..., channels]` → `[..., out]`."""

    def __init__(self, channels: int, out: int, blocks: int, bias: bool) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.empty(blocks, blocks, channels // blocks))
        """R: of each block of the inputs, a value for each block of the outputs."""
        self.second = nn.Parameter(torch.empty(blocks, out // blocks, blocks))
        """L: of each block of the outputs, from a value of each block of the inputs."""
        self.bias = nn.Parameter(torch.zeros(out)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for tensor in (self.first, self.second):
            nn.init.normal_(tensor, std=tensor.shape[-1] ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        blocks = self.first.shape[0]
        values = torch.einsum("...bi,bti->...tb", x.unflatten(-1, (blocks, -1)), self.first)
        features = torch.einsum("...tb,tob->...to", values, self.second).flatten(-2)
        return features if self.bias is None else features + self.bias
