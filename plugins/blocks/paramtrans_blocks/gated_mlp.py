"""A feed-forward block whose hidden units are multiplied by gates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import PositiveInt
from torch import Tensor, nn

from paramtrans.api.adapter import BlockAdapter, BlockOptions, Part
from paramtrans.api.options import Trials
from paramtrans.api.specs import SymmetryGroup, SymmetryMember
from paramtrans_blocks.activations import MAKERS, Activation


class GatedMlpOptions(BlockOptions):
    """Sizes of a gated feed-forward block."""

    out: PositiveInt | None = None
    """Channels that leave it; as many as enter it by default."""
    hidden: PositiveInt | None = None
    """Hidden units; twice as many as channels by default."""
    activation: Activation = "silu"
    """Of the gates."""
    bias: bool = False
    """Whether the layers have biases."""


class GatedMlp(BlockAdapter):
    """W₃ (act(W₁ x) · W₂ x) at each position (Shazeer 2020, arXiv 2002.05202; SwiGLU by default)."""

    Options: ClassVar[type[BlockOptions]] = GatedMlpOptions
    options: GatedMlpOptions
    trials: ClassVar[Trials] = ({}, {"hidden": 3, "activation": "gelu", "bias": True})
    channels_last: ClassVar[bool] = True
    positionwise: ClassVar[bool] = True

    @property
    def hidden(self) -> int:
        """Hidden units."""
        return self.options.hidden or 2 * self.options.channels

    @classmethod
    def options_for(cls, part: Part) -> Mapping[str, Any]:
        return {"channels": part.entering.shape[-1], "out": part.leaving.shape[-1]}

    def with_sizes(self, sizes: Mapping[str, int]) -> BlockAdapter:
        return type(self)(self.options.model_copy(update={"hidden": sizes.get("hidden", self.hidden)}))

    def module(self) -> nn.Module:
        return GatedMlpModule(self.options, self.hidden)

    def symmetries(self) -> tuple[SymmetryGroup, ...]:
        members = [SymmetryMember("gate.weight", 0), SymmetryMember("up.weight", 0, 1)]
        if self.options.bias:
            members += [SymmetryMember("gate.bias", 0), SymmetryMember("up.bias", 0, 1)]
        members.append(SymmetryMember("down.weight", 1, -1))
        return (SymmetryGroup("hidden", self.hidden, tuple(members), rescale=True, signs=True),)


class GatedMlpModule(nn.Module):
    """`[..., channels]` → `[..., out]`."""

    def __init__(self, options: GatedMlpOptions, hidden: int) -> None:
        super().__init__()
        channels, bias = options.channels, options.bias
        self.gate, self.up = (nn.Linear(channels, hidden, bias) for _ in range(2))
        self.activation = MAKERS[options.activation]()
        self.down = nn.Linear(hidden, options.out or channels, bias)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.down(self.activation(self.gate(x)) * self.up(x))
        return features
