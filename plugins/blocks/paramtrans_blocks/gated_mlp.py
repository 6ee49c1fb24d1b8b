"""A feed-forward block whose hidden units are multiplied by gates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from paramtrans.api.adapter import BlockAdapter, BlockOptions, Part
from paramtrans.api.options import Trials
from paramtrans.api.specs import SymmetryGroup, SymmetryMember
from paramtrans.api.stacking import Params
from paramtrans_blocks.activations import MAKERS, Activation
from paramtrans_blocks.solved import solved_layer
from paramtrans_blocks.source_feed_forward import FeedForward, feed_forward_of


class GatedMlpOptions(BlockOptions):
    """Sizes of a gated feed-forward block."""

    out: PositiveInt | None = None
    """Channels that leave it; as many as enter it by default."""
    hidden: PositiveInt | None = None
    """Hidden units; in place of a gated block as many as that has, of another two thirds of its own; else twice as many
    as channels."""
    activation: Activation = "silu"
    """Of the gates; in place of a feed-forward block its own."""
    bias: bool = False
    """Whether the layers have biases."""


class GatedMlp(BlockAdapter):
    """W₃ (act(W₁ x) · W₂ x) at each position (Shazeer 2020, arXiv 2002.05202; SwiGLU by default).

    In place of a feed-forward block it starts from that block's strongest units; those without a gate get one that is
    one. The last layer is solved for by least squares, where units are missing or the activation is another.
    """

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
        sizes = {"channels": part.entering.shape[-1], "out": part.leaving.shape[-1]}
        source = feed_forward_of(part)
        if source is None:
            return sizes
        units = len(source.first.weight)
        hidden = max(1, 2 * units // 3) if source.up is None else units
        bias = source.bias or source.up is None
        return {**sizes, "hidden": hidden, "activation": source.activation, "bias": bias}

    def with_sizes(self, sizes: Mapping[str, int]) -> BlockAdapter:
        return type(self)(self.options.model_copy(update={"hidden": sizes.get("hidden", self.hidden)}))

    def module(self) -> GatedMlpModule:
        return GatedMlpModule(self.options, self.hidden)

    def symmetries(self) -> tuple[SymmetryGroup, ...]:
        members = [SymmetryMember("gate.weight", 0), SymmetryMember("up.weight", 0, 1)]
        if self.options.bias:
            members += [SymmetryMember("gate.bias", 0), SymmetryMember("up.bias", 0, 1)]
        members.append(SymmetryMember("down.weight", 1, -1))
        return (SymmetryGroup("hidden", self.hidden, tuple(members), rescale=True, signs=True),)

    @torch.no_grad()
    def warm_start(self, part: Part) -> Params | None:
        source = feed_forward_of(part)
        if source is None or self.hidden > len(source.first.weight):
            return None
        if not self.options.bias and (source.bias or source.up is None):
            return None  # a gate that is one is a bias
        strongest = source.strength(part.entering).topk(self.hidden).indices.sort().values
        layers = source.units(strongest)
        module = self.module().to(part.entering)
        module.load_state_dict(self._state(layers))
        if self.hidden < len(source.first.weight) or self.options.activation != source.activation:
            read = module.hidden(part.entering)
            weight, bias = solved_layer(read, part.leaving, module.down.weight, module.down.bias)
            module.down.weight.copy_(weight)
            if bias is not None:
                module.down.bias.copy_(bias)
        return {name: tensor[None] for name, tensor in module.state_dict().items()}

    def _state(self, source: FeedForward) -> dict[str, Tensor]:
        """The source's own layers, by this block's names."""
        first, up, down = source.first, source.up, source.down
        state = {
            "gate.weight": first.weight,
            "up.weight": torch.zeros_like(first.weight) if up is None else up.weight,
            "down.weight": down.weight,
        }
        if self.options.bias:
            ones = torch.ones_like(first.weight[:, 0])
            state["gate.bias"] = first.offset
            state["up.bias"] = ones if up is None else up.offset
            state["down.bias"] = down.offset
        return state


class GatedMlpModule(nn.Module):
    """`[..., channels]` → `[..., out]`."""

    def __init__(self, options: GatedMlpOptions, hidden: int) -> None:
        super().__init__()
        channels, bias = options.channels, options.bias
        self.gate, self.up = (nn.Linear(channels, hidden, bias) for _ in range(2))
        self.activation = MAKERS[options.activation]()
        self.down = nn.Linear(hidden, options.out or channels, bias)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.down(self.hidden(x))
        return features

    def hidden(self, x: Tensor) -> Tensor:
        """What enters the last layer, `[..., hidden]`."""
        gated: Tensor = self.activation(self.gate(x)) * self.up(x)
        return gated
