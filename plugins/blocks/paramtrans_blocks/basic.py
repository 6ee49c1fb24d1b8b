"""The ResNet BasicBlock, the paper's source block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import PositiveInt, field_validator
from torch import Tensor, nn

from paramtrans.api.adapter import BlockAdapter, BlockOptions, Recognised
from paramtrans.api.block_module import BranchModule
from paramtrans.api.options import Trials
from paramtrans.api.specs import BlockSpec, Reader, SymmetryGroup, SymmetryMember, TensorKind, TensorSpec
from paramtrans.api.stacking import Params, split
from paramtrans_blocks.folding import fold


class BasicBlockOptions(BlockOptions):
    """Sizes of a BasicBlock, and what a translator reads of it."""

    hidden: PositiveInt | None = None
    """Channels between the convolutions; the block's own channels by default."""
    kernel: PositiveInt = 3
    """Kernel side, odd."""
    read: Literal["folded", "weights", "all"] = "folded"
    """`folded`: BatchNorm folded into weight and bias of each convolution. `weights`: the convolution weights alone, as
    in the paper. `all`: every tensor as it is, normalisation and statistics too."""

    @field_validator("kernel")
    @classmethod
    def _odd(cls, kernel: int) -> int:
        return odd(kernel)


class BasicBlock(BlockAdapter):
    """conv, BatchNorm, ReLU, conv, BatchNorm, + input, ReLU; no convolution biases.

    As a target, BatchNorm parameters and statistics are written too.
    """

    Options: ClassVar[type[BlockOptions]] = BasicBlockOptions
    options: BasicBlockOptions
    trials: ClassVar[Trials] = (
        {},
        {"hidden": 2, "kernel": 1},
        {"hidden": 7, "kernel": 5, "read": "weights"},
        {"hidden": 3, "read": "all"},
    )
    reading_options: ClassVar[frozenset[str]] = frozenset({"read"})
    rectified: ClassVar[bool] = True

    @property
    def hidden(self) -> int:
        """Channels between the convolutions."""
        return self.options.hidden or self.options.channels

    @property
    def token_width(self) -> int:
        return self.options.kernel**2

    @classmethod
    def recognise(cls, module: nn.Module) -> list[Recognised]:
        """Modules of two convolutions and two BatchNorms by these names and nothing else: those of hosts, and many
        written by hand. What they compute is compared afterwards."""
        layers = dict(module.named_children())
        if {*layers} != {"conv1", "bn1", "conv2", "bn2"}:
            return []
        conv = layers["conv1"]
        if not isinstance(conv, nn.Conv2d):
            return []
        sizes = {"channels": conv.in_channels, "hidden": conv.out_channels, "kernel": conv.kernel_size[0]}
        with torch.device("meta"):
            like = BasicBlockModule(**sizes)
        same = all(_same_settings(layer, like.get_submodule(name)) for name, layer in layers.items())
        return [Recognised(sizes, {name: name for name in layers}, whole=True)] if same else []

    def with_sizes(self, sizes: Mapping[str, int]) -> BlockAdapter:
        return type(self)(self.options.model_copy(update={"hidden": sizes.get("hidden", self.hidden)}))

    def module(self) -> nn.Module:
        return BasicBlockModule(self.options.channels, self.hidden, self.options.kernel)

    def symmetries(self) -> tuple[SymmetryGroup, ...]:
        # BatchNorm undoes any scale of conv1, so rescaling acts behind it; statistics stay.
        members = [SymmetryMember("conv1.weight", 0)]
        members += [SymmetryMember(f"bn1.{name}", 0, 1) for name in ("weight", "bias")]
        members += [SymmetryMember(f"bn1.{name}", 0) for name in ("running_mean", "running_var")]
        members.append(SymmetryMember("conv2.weight", 1, -1))
        return (SymmetryGroup("hidden", self.hidden, tuple(members), rescale=True),)

    def readers(self) -> tuple[Reader, ...]:
        return (Reader("conv2", norm="bn2"),)

    def stream(self) -> tuple[SymmetryMember, ...]:
        norm = (SymmetryMember(f"bn2.{name}", 0) for name in ("weight", "bias", "running_mean", "running_var"))
        return (SymmetryMember("conv1.weight", 1), SymmetryMember("conv2.weight", 0), *norm)

    @property
    def reading(self) -> BlockSpec:
        if self.options.read == "all":
            return self.spec
        tensors = tuple(t for t in self.spec.tensors if t.kind is TensorKind.WEIGHT)
        groups = (hidden_group(self.hidden, bias=self.options.read == "folded"),)
        stream = conv_stream(bias=self.options.read == "folded")
        if self.options.read == "folded":
            first, second = tensors
            first_bias = TensorSpec("conv1.bias", (self.hidden,), TensorKind.BIAS)
            second_bias = TensorSpec("conv2.bias", (self.options.channels,), TensorKind.BIAS)
            tensors = (first, first_bias, second, second_bias)
        return BlockSpec(tensors, groups, stream, self.token_width)

    def read(self, params: Params) -> Params:
        if self.options.read == "all":
            return params
        if self.options.read == "weights":
            return {name: params[name] for name in ("conv1.weight", "conv2.weight")}
        folded: Params = {}
        for conv, norm in (("conv1", "bn1"), ("conv2", "bn2")):
            folded[f"{conv}.weight"], folded[f"{conv}.bias"] = fold(params[f"{conv}.weight"], split(params, norm))
        return folded


class BasicBlockModule(nn.Module, BranchModule):
    """`[batch, channels, h, w]` → the same shape."""

    def __init__(self, channels: int, hidden: int, kernel: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, hidden, kernel, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, channels, kernel, padding=kernel // 2, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.branch(x) + x)

    def branch(self, x: Tensor) -> Tensor:
        branch: Tensor = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return branch


def _same_settings(layer: nn.Module, like: nn.Module) -> bool:
    """Whether a convolution or BatchNorm computes what another one would with its tensors."""
    if isinstance(like, nn.BatchNorm2d):
        return isinstance(layer, nn.BatchNorm2d) and layer.eps == like.eps and layer.track_running_stats
    return isinstance(layer, nn.Conv2d) and layer.extra_repr() == like.extra_repr()


def odd(kernel: int) -> int:
    """The kernel side, if padding can keep the size of the features; else raises `ValueError`."""
    if kernel % 2 == 0:
        raise ValueError("must be odd, so that padding keeps the size of the features")
    return kernel


def hidden_group(hidden: int, bias: bool) -> SymmetryGroup:
    """The symmetry of two convolutions with a ReLU between them."""
    members = [SymmetryMember("conv1.weight", 0, 1), SymmetryMember("conv2.weight", 1, -1)]
    if bias:
        members.insert(1, SymmetryMember("conv1.bias", 0, 1))
    return SymmetryGroup("hidden", hidden, tuple(members), rescale=True)


def conv_stream(bias: bool) -> tuple[SymmetryMember, ...]:
    """The block's own channels in two convolutions."""
    weights = (SymmetryMember("conv1.weight", 1), SymmetryMember("conv2.weight", 0))
    return (*weights, SymmetryMember("conv2.bias", 0)) if bias else weights
