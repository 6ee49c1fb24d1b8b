"""Linear layers one after the other: plain MLPs, and the feed-forward blocks of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from paramtrans.api.adapter import BlockAdapter, BlockOptions, Part
from paramtrans.api.block_module import SkipModule, nothing
from paramtrans.api.options import Trials
from paramtrans.api.specs import Reader, SymmetryGroup, SymmetryMember
from paramtrans.api.stacking import Params
from paramtrans_blocks.activations import MAKERS, Activation
from paramtrans_blocks.solved import solved_layer
from paramtrans_blocks.source_feed_forward import feed_forward_of


class LinearChainOptions(BlockOptions):
    """Sizes of a chain."""

    out: PositiveInt | None = None
    """Values that leave the block; as many as enter it by default."""
    hidden: tuple[PositiveInt, ...] = Field(min_length=1)
    """Units of each layer but the last."""
    activation: Activation = "relu"
    """Between the layers."""
    bias: bool = True
    """Whether the layers have biases."""
    skip: Literal["none", "identity"] = "identity"
    """What is added to the branch: nothing, or the input."""
    norm: PositiveFloat | None = None
    """The `eps` of a LayerNorm before the first layer, inside the skip; None: no normalisation."""
    closing: PositiveFloat | None = None
    """The `eps` of a LayerNorm of the sum, as in post-norm transformers; None: no normalisation."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.skip == "identity" and self.out not in (None, self.channels):
            raise ValueError("a skip that is the identity needs as many values out as in")
        return self


class LinearChain(BlockAdapter):
    """[LayerNorm,] Linear, activation, Linear, … [+ input] [, LayerNorm], on the last axis.

    Features are `[batch, ..., channels]`. In place of a feed-forward block without gates it starts from that block's
    strongest units; the last layer is solved for where units are missing or the activation is another.
    """

    Options: ClassVar[type[BlockOptions]] = LinearChainOptions
    options: LinearChainOptions
    trials: ClassVar[Trials] = (
        {"hidden": [5], "norm": 1e-6},
        {"hidden": [3, 4], "activation": "gelu", "skip": "none"},
        {"hidden": [3], "activation": "gelu", "closing": 1e-6},
        {"hidden": [3], "activation": "tanh"},
    )
    channels_last: ClassVar[bool] = True
    positionwise: ClassVar[bool] = True

    @property
    def closing(self) -> str | None:  # type: ignore[override]
        return "closing" if self.options.closing else None

    @classmethod
    def options_for(cls, part: Part) -> Mapping[str, Any]:
        sizes = {"channels": part.entering.shape[-1], "out": part.leaving.shape[-1]}
        source = feed_forward_of(part)
        if source is None:
            return {"channels": sizes["channels"]}
        hidden = [len(source.first.weight)]
        return {**sizes, "hidden": hidden, "activation": source.activation, "bias": source.bias, "skip": "none"}

    @torch.no_grad()
    def warm_start(self, part: Part) -> Params | None:
        source, options = feed_forward_of(part), self.options
        if source is None or source.up is not None or source.bias > options.bias or len(options.hidden) > 1:
            return None
        if options.skip != "none" or options.norm or options.closing or options.hidden[0] > len(source.first.weight):
            return None
        layers = source.units(source.strength(part.entering).topk(options.hidden[0]).indices.sort().values)
        weight, bias = layers.down.weight, layers.down.offset if options.bias else None
        if options.hidden[0] < len(source.first.weight) or options.activation != source.activation:
            read = replace(layers, activation=options.activation).hidden(part.entering)
            weight, bias = solved_layer(read, part.leaving, weight, bias)
        params = {"fc1.weight": layers.first.weight, "fc2.weight": weight}
        if bias is not None:
            params |= {"fc1.bias": layers.first.offset, "fc2.bias": bias}
        return {name: params[name][None] for name in self.spec.names}

    def with_sizes(self, sizes: Mapping[str, int]) -> BlockAdapter:
        hidden = tuple(sizes.get(f"hidden{i}", size) for i, size in enumerate(self.options.hidden, 1))
        return type(self)(self.options.model_copy(update={"hidden": hidden}))

    def module(self) -> nn.Module:
        return LinearChainModule(self.options)

    def readers(self) -> tuple[Reader, ...]:
        return tuple(Reader(f"fc{i}") for i in range(2, len(self.options.hidden) + 2))

    def symmetries(self) -> tuple[SymmetryGroup, ...]:
        rescale, signs, groups = self.options.activation == "relu", self.options.activation == "tanh", []
        for i, size in enumerate(self.options.hidden, 1):
            members = [SymmetryMember(f"fc{i}.weight", 0, 1), SymmetryMember(f"fc{i + 1}.weight", 1, -1)]
            if self.options.bias:
                members.append(SymmetryMember(f"fc{i}.bias", 0, 1))
            groups.append(SymmetryGroup(f"hidden{i}", size, tuple(members), rescale=rescale, signs=signs))
        return tuple(groups)

    def stream(self) -> tuple[SymmetryMember, ...]:
        if self.options.skip == "none":
            return ()
        last_layer = len(self.options.hidden) + 1
        members = [SymmetryMember("fc1.weight", 1), SymmetryMember(f"fc{last_layer}.weight", 0)]
        members += [SymmetryMember(f"fc{last_layer}.bias", 0)] if self.options.bias else []
        norms = [name for name in ("norm", "closing") if getattr(self.options, name)]
        members += [SymmetryMember(f"{norm}.{name}", 0) for norm in norms for name in ("weight", "bias")]
        return tuple(members)


class LinearChainModule(nn.Module, SkipModule):
    """`[batch, ..., channels]` → `[batch, ..., out]`."""

    def __init__(self, options: LinearChainOptions) -> None:
        super().__init__()
        self.adds = options.skip
        self.norm = nn.LayerNorm(options.channels, options.norm) if options.norm else nn.Identity()
        widths = [options.channels, *options.hidden, options.out or options.channels]
        self.count = len(widths) - 1
        for i in range(self.count):
            self.add_module(f"fc{i + 1}", nn.Linear(widths[i], widths[i + 1], bias=options.bias))
        self.activation = MAKERS[options.activation]()
        self.closing = nn.LayerNorm(widths[-1], options.closing) if options.closing else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.closing(self.branch(x) + self.skip(x))
        return output

    def branch(self, x: Tensor) -> Tensor:
        x = self.get_submodule("fc1")(self.norm(x))
        for i in range(2, self.count + 1):
            x = self.get_submodule(f"fc{i}")(self.activation(x))
        return x

    def skip(self, x: Tensor) -> Tensor:
        return x if self.adds == "identity" else nothing(x)
