"""Multi-head attention over all positions, or over those before: that of encoders and of decoders of transformers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from paramtrans.api.adapter import BlockAdapter, BlockOptions
from paramtrans.api.block_module import Keep, SkipModule, nothing
from paramtrans.api.options import Trials
from paramtrans.api.specs import Reader, RotationGroup, SymmetryGroup, SymmetryMember
from paramtrans_blocks.positions import by_head, nothing_before, rotated, softmax_attention


class HeadsOptions(BlockOptions):
    """Sizes of an attention block."""

    heads: PositiveInt
    """How many heads."""
    width: PositiveInt
    """Values of one head."""
    key_heads: PositiveInt | None = None
    """Heads of keys and values, each for several of queries; as many as `heads` by default."""
    bias: bool = True
    """Whether the layers have biases."""
    skip: Literal["none", "identity"] = "identity"
    """What is added to the branch: nothing, or the input."""
    closing: PositiveFloat | None = None
    """The `eps` of a LayerNorm of the sum, as in post-norm transformers; None: no normalisation."""
    causal: bool = False
    """Whether a position looks at itself and those before alone, as in language models."""
    frequencies: tuple[float, ...] = ()
    """Rotary positions: radians by which each pair of a head's queries and keys turns from a position to the next."""
    neighbours: bool = False
    """Whether the values of such a pair stand beside each other; else half of the pairs' values apart."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.key_heads is not None and self.heads % self.key_heads:
            raise ValueError(f"key_heads: {self.heads} query heads cannot share {self.key_heads} evenly")
        if 2 * len(self.frequencies) > self.width:
            raise ValueError(f"frequencies: a head of {self.width} has no {len(self.frequencies)} pairs")
        return self

    @property
    def kept_heads(self) -> int:
        """Heads of keys and values."""
        return self.key_heads or self.heads

    def rotated(self, values: Tensor, first: int = 0) -> Tensor:
        """Queries or keys by rotary positions from `first` on, `[..., positions, width]`."""
        return rotated(values, self.frequencies, self.neighbours, first)


class Heads(BlockAdapter):
    """softmax(q·k / √width) over positions for each head, then a Linear [+ input] [, LayerNorm].

    Positions are all, or with `causal` those up to the head's own. Its hidden units are whole heads; none are declared
    where several heads share keys.
    """

    Options: ClassVar[type[BlockOptions]] = HeadsOptions
    options: HeadsOptions
    trials: ClassVar[Trials] = (
        {"heads": 3, "width": 2},
        {"heads": 2, "width": 3, "bias": False, "skip": "none"},
        {"heads": 2, "width": 2, "closing": 1e-6},
        {"heads": 4, "width": 4, "key_heads": 2, "causal": True, "frequencies": [1.0], "skip": "none"},
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
        if self.options.kept_heads != self.options.heads:
            return ()
        members = [SymmetryMember(f"{name}.weight", 0) for name in QKV]
        members += [SymmetryMember(f"{name}.bias", 0) for name in QKV if self.options.bias]
        members.append(SymmetryMember("out.weight", 1))
        return (SymmetryGroup("heads", self.options.heads, tuple(members), width=self.options.width),)

    def rotations(self) -> tuple[RotationGroup, ...]:
        if self.options.kept_heads != self.options.heads:
            return ()
        kinds = {"query-key": [("query", 0), ("key", 0)], "value-out": [("value", 0), ("out", 1)]}
        if self.options.frequencies:  # rotary positions turn pairs of these axes
            del kinds["query-key"]
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


class AttentionModule(nn.Module, SkipModule):
    """`[batch, ..., positions, channels]` → the same shape; what mixes positions is `mix`."""

    def __init__(self, options: HeadsOptions) -> None:
        super().__init__()
        self.options = options
        self.out = nn.Linear(options.heads * options.width, options.channels, options.bias)
        self.closing = nn.LayerNorm(options.channels, options.closing) if options.closing else nn.Identity()

    @abstractmethod
    def mix(self, x: Tensor, keep: Keep) -> Tensor:
        """What each head gives at each position.

        Args:
            x: `[..., positions, channels]`.
            keep: Gives two tensors of all positions for those of these; is called once.

        Returns:
            `[..., heads, positions, width]`.
        """

    def forward(self, x: Tensor) -> Tensor:
        return self.continued(x, nothing_before)

    def continued(self, x: Tensor, keep: Keep) -> Tensor:
        """What leaves the block at positions behind others, of which `keep` knows."""
        output: Tensor = self.closing(self.branch(x, keep) + self.skip(x))
        return output

    def branch(self, x: Tensor, keep: Keep = nothing_before) -> Tensor:
        branch: Tensor = self.out(self.mix(x, keep).transpose(-3, -2).flatten(-2))
        return branch

    def skip(self, x: Tensor) -> Tensor:
        return x if self.options.skip == "identity" else nothing(x)


class HeadsModule(AttentionModule):
    """softmax(q·k / √width), each head of keys and values for one or several of queries."""

    def __init__(self, options: HeadsOptions) -> None:
        super().__init__(options)
        kept = options.kept_heads * options.width
        self.query = nn.Linear(options.channels, options.heads * options.width, options.bias)
        self.key, self.value = (nn.Linear(options.channels, kept, options.bias) for _ in range(2))

    def mix(self, x: Tensor, keep: Keep) -> Tensor:
        options = self.options
        query = by_head(self.query(x), options.heads)
        key, value = keep(*(by_head(layer(x), options.kept_heads) for layer in (self.key, self.value)))
        query = options.rotated(query, key.shape[-2] - query.shape[-2])
        return softmax_attention(query, options.rotated(key), value, options.causal)
