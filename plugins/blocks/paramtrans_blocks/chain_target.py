"""What families of convolutional targets share: each is a chain of convolutions in place of a part of any network."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from typing import Any, ClassVar, Literal

from pydantic import PositiveInt, field_validator
from torch import Tensor, nn

from paramtrans.api.adapter import BlockAdapter, BlockOptions, Part
from paramtrans.api.specs import Reader, SymmetryGroup, SymmetryMember
from paramtrans.api.stacking import Params
from paramtrans.errors import SpecMismatch
from paramtrans_blocks.basic import odd
from paramtrans_blocks.conv_chain import ConvChain, ConvChainModule, ConvChainOptions, Step
from paramtrans_blocks.source_convolutions import Norm, convolutions_of


class ChainTargetOptions(BlockOptions):
    """What a chain that takes a part's place needs to know; by default it is like a ResNet's basic block."""

    out: PositiveInt | None = None
    """Channels that leave the block; as many as enter it by default."""
    stride: PositiveInt = 1
    """By what the first convolution and the skip divide height and width."""
    kernel: PositiveInt = 3
    """Kernel side, odd."""
    layers: Literal[1, 2] = 2
    """1: in place of a single convolution, without activation inside; 2: two convolutions with a ReLU between them."""
    skip: Literal["none", "identity", "projection"] = "identity"
    """What is added to the branch: nothing, the input, or a 1×1 convolution of it with BatchNorm."""
    final: Literal["relu"] | None = "relu"
    """Activation of the sum."""

    @field_validator("kernel")
    @classmethod
    def _odd(cls, kernel: int) -> int:
        return odd(kernel)


class ChainTarget(BlockAdapter):
    """A kind of block that is a `conv_chain` of its own form."""

    Options: ClassVar[type[BlockOptions]] = ChainTargetOptions
    options: ChainTargetOptions

    @abstractmethod
    def widths(self) -> tuple[int, ...]:
        """Channels behind each step that is not depthwise, but for the last."""

    @abstractmethod
    def steps(self) -> Sequence[Step]:
        """The convolutions, in order."""

    @cached_property
    def chain(self) -> ConvChain:
        """The same block as a `conv_chain`."""
        options = self.options
        return ConvChain(
            ConvChainOptions(
                channels=options.channels,
                out=options.out,
                hidden=self.widths(),
                steps=tuple(self.steps()),
                skip=options.skip,
                skip_stride=options.stride if options.skip == "projection" else 1,
                final=options.final,
            )
        )

    @property
    def out(self) -> int:
        """Channels that leave the block."""
        return self.options.out or self.options.channels

    @property
    def rectified(self) -> bool:  # type: ignore[override]
        return self.chain.rectified

    @property
    def token_width(self) -> int:
        return self.options.kernel**2

    def module(self) -> nn.Module:
        return ConvChainModule(self.chain.options)

    @property
    def readout(self) -> str | None:  # type: ignore[override]
        return self.chain.readout

    def readers(self) -> tuple[Reader, ...]:
        return self.chain.readers()

    def symmetries(self) -> tuple[SymmetryGroup, ...]:
        return self.chain.symmetries()

    def stream(self) -> tuple[SymmetryMember, ...]:
        return self.chain.stream()

    @classmethod
    def options_for(cls, part: Part) -> Mapping[str, Any]:
        """As many channels and strides as the part has; a skip and a ReLU at the end where the part can have them."""
        entering, leaving = part.entering, part.leaving
        if entering.ndim != 4 or leaving.ndim != 4 or entering.shape[2] % leaving.shape[2]:
            raise SpecMismatch(f"it makes {list(leaving.shape)} of {list(entering.shape)}, no maps of features")
        sizes = {
            "channels": entering.shape[1],
            "out": leaving.shape[1],
            "stride": entering.shape[2] // leaving.shape[2],
        }
        if isinstance(part.module, nn.Conv2d):
            kernel = part.module.kernel_size[0]
            return {**sizes, "kernel": kernel, "layers": 1, "skip": "none", "final": None}
        skip = "identity" if entering.shape == leaving.shape else "projection"
        return {**sizes, "skip": skip, "final": "relu" if bool((leaving >= 0).all()) else None}


def folded_layers(part: Part) -> list[tuple[Tensor, Tensor | None]] | None:
    """The dense convolutions of a part in order, with their BatchNorms folded in.

    Args:
        part: A single convolution, or a chain of convolutions whatever its layers are called.

    Returns:
        Weight `[out, in, k, k]` and bias `[out]` of each; None where the part is no chain of dense convolutions with
        zeros around and a ReLU between them.
    """
    chain = convolutions_of(part)
    if chain is None or not all(layer.rectified for layer in chain.layers[:-1]):
        return None
    return [layer.folded() for layer in chain.layers]


def projection(part: Part) -> Params:
    """The part's own projection on its skip, by the names of a chain; nothing where it has none."""
    chain = convolutions_of(part)
    if chain is None or not chain.skip or chain.skip[0].norm is None or chain.skip[0].bias is not None:
        return {}
    [layer] = chain.skip
    norm = {f"downsample.1.{field.name}": getattr(layer.norm, field.name) for field in fields(Norm)[:-1]}
    return {"downsample.0.weight": layer.weight[None], **{name: tensor[None] for name, tensor in norm.items()}}
