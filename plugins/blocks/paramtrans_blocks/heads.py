"""Multi-head attention in which every position looks at all positions, as it stands in encoders of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from paramtrans.api.adapter import BlockAdapter, BlockOptions
from paramtrans.api.block_module import SkipModule
from paramtrans.api.options import Trials
from paramtrans.api.specs import Reader, RotationGroup, SymmetryGroup, SymmetryMember


class HeadsOptions(BlockOptions):
    """Sizes of an attention block."""

    heads: PositiveInt
    """How many heads."""
    width: PositiveInt
    """Values of one head."""
    bias: bool = True
    """Whether the layers have biases."""
    skip: Literal["none", "identity"] = "identity"
    """What is added to the branch: nothing, or the input."""
    closing: PositiveFloat | None = None
    """The `eps` of a LayerNorm of the sum, as in post-norm transformers; None: no normalisation."""


class Heads(BlockAdapter):
    """softmax(q·k / √width) over all positions for each head, then a Linear [+ input] [, LayerNorm]; no mask.

    Its hidden units are whole heads.
    """

    Options: ClassVar[type[BlockOptions]] = HeadsOptions
    options: HeadsOptions
    trials: ClassVar[Trials] = (
        {"heads": 3, "width": 2},
        {"heads": 2, "width": 3, "bias": False, "skip": "none"},
        {"heads": 2, "width": 2, "closing": 1e-6},
    )
    channels_last: ClassVar[bool] = True

    @property
    def closing(self) -> str | None:  # type: ignore[override]
        return "closing" if self.options.closing else None

    def with_sizes(self, sizes: Mapping[str, int]) -> BlockAdapter:
        return type(self)(self.options.model_copy(update={"heads": sizes.get("heads", self.options.heads)}))

    def module(self) -> nn.Module:
        return HeadsModule(self.options)

    def readers(self) -> tuple[Reader, ...]:
        return (Reader("out"),)

    def symmetries(self) -> tuple[SymmetryGroup, ...]:
        members = [SymmetryMember(f"{name}.weight", 0) for name in QKV]
        members += [SymmetryMember(f"{name}.bias", 0) for name in QKV if self.options.bias]
        members.append(SymmetryMember("out.weight", 1))
        return (SymmetryGroup("heads", self.options.heads, tuple(members), width=self.options.width),)

    def rotations(self) -> tuple[RotationGroup, ...]:
        kinds = {"query-key": [("query", 0), ("key", 0)], "value-out": [("value", 0), ("out", 1)]}
        groups = []
        for name, layers in kinds.items():
            members = [SymmetryMember(f"{layer}.weight", axis) for layer, axis in layers]
            members += [SymmetryMember(f"{layer}.bias", 0) for layer, axis in layers if self.options.bias and axis == 0]
            groups.append(RotationGroup(name, self.options.heads, self.options.width, tuple(members)))
        return tuple(groups)

    def stream(self) -> tuple[SymmetryMember, ...]:
        if self.options.skip == "none":
            return ()
        members = [*(SymmetryMember(f"{name}.weight", 1) for name in QKV), SymmetryMember("out.weight", 0)]
        members += [SymmetryMember("out.bias", 0)] if self.options.bias else []
        members += [SymmetryMember(f"closing.{name}", 0) for name in ("weight", "bias") if self.options.closing]
        return tuple(members)


QKV = ("query", "key", "value")


class HeadsModule(nn.Module, SkipModule):
    """`[batch, ..., positions, channels]` → the same shape."""

    def __init__(self, options: HeadsOptions) -> None:
        super().__init__()
        self.shape, self.adds = (options.heads, options.width), options.skip
        channels, values = options.channels, options.heads * options.width
        self.query, self.key, self.value = (nn.Linear(channels, values, options.bias) for _ in QKV)
        self.out = nn.Linear(values, channels, options.bias)
        self.closing = nn.LayerNorm(channels, options.closing) if options.closing else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.closing(self.branch(x) + self.skip(x))
        return output

    def branch(self, x: Tensor) -> Tensor:
        query, key, value = (
            layer(x).unflatten(-1, self.shape).transpose(-3, -2) for layer in (self.query, self.key, self.value)
        )
        mixed = scaled_dot_product_attention(query, key, value)
        branch: Tensor = self.out(mixed.transpose(-3, -2).flatten(-2))
        return branch

    def skip(self, x: Tensor) -> Tensor:
        return x if self.adds == "identity" else x.new_zeros(())
