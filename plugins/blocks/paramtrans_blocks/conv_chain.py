"""Convolutions one after the other, with or without a skip around them: ResNet, MobileNet and VGG blocks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import ClassVar, Literal, Self

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator
from torch import Tensor, nn

from paramtrans.api.adapter import BlockAdapter, BlockOptions
from paramtrans.api.block_module import SkipModule, nothing
from paramtrans.api.options import BaseOptions, Trials
from paramtrans.api.specs import Reader, SymmetryGroup, SymmetryMember
from paramtrans_blocks.activations import MAKERS, Activation

LAYERS = {1: (nn.Conv1d, nn.BatchNorm1d), 2: (nn.Conv2d, nn.BatchNorm2d)}
POOLS = {"max": (nn.MaxPool1d, nn.MaxPool2d), "average": (nn.AvgPool1d, nn.AvgPool2d)}


class Pool(BaseOptions):
    """A pooling layer behind a step."""

    kind: Literal["max", "average"]
    """Which."""
    kernel: PositiveInt
    """Kernel side."""
    stride: PositiveInt
    """Step."""
    padding: NonNegativeInt = 0
    """Zeros around."""


class Step(BaseOptions):
    """One convolution and what follows it."""

    kernel: PositiveInt = 3
    """Kernel side."""
    stride: PositiveInt = 1
    """Step."""
    padding: NonNegativeInt = 1
    """Zeros around."""
    dilation: PositiveInt = 1
    """Distance of the values under the kernel."""
    depthwise: bool = False
    """Whether channels are convolved apart from each other, in groups of `together`; they then stay the same units."""
    together: PositiveInt = 1
    """Channels of one group, where depthwise; those of a group of several are one unit (ResNeXt)."""
    bias: bool = False
    """Whether the convolution has a bias."""
    norm: PositiveFloat | None = 1e-5
    """The `eps` of the BatchNorm behind it; `"none"`: no normalisation."""
    activation: Activation | None = "relu"
    """Behind both; `"none"` behind the last step, whose sum with the skip `final` goes for."""
    pool: Pool | None = None
    """Behind the activation."""

    @field_validator("norm", "activation", mode="before")
    @classmethod
    def _none(cls, value: object) -> object:
        """TOML has no other word for it."""
        return None if value == "none" else value


class ConvChainOptions(BlockOptions):
    """Sizes and steps of a chain."""

    axes: Literal[1, 2] = 2
    """Axes of positions that the convolutions run over: 2 for images, 1 for signals."""
    out: PositiveInt | None = None
    """Channels that leave the block; as many as enter it by default."""
    hidden: tuple[PositiveInt, ...]
    """Channels behind each step that is not depthwise, but for the last; a unit is one, or a group of them."""
    steps: tuple[Step, ...] = (Step(), Step(activation=None))
    """The convolutions in order; by default those of a ResNet BasicBlock."""
    skip: Literal["none", "identity", "projection"] = "identity"
    """What is added to the branch: nothing, the input, or a 1×1 convolution of it with BatchNorm."""
    skip_stride: PositiveInt = 1
    """Step of the projection."""
    final: Literal["relu"] | None = "relu"
    """Activation of the sum."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        dense = [step for step in self.steps if not step.depthwise]
        if not dense or self.steps[-1].depthwise or len(dense) != len(self.hidden) + 1:
            raise ValueError("needs one step that is not depthwise for each of `hidden`, and such a one at the end")
        if self.skip == "identity" and self.out not in (None, self.channels):
            raise ValueError("a skip that is the identity needs as many channels out as in")
        channels, widths = self.channels, list(self.hidden)
        for step in self.steps[:-1]:
            channels = channels if step.depthwise else widths.pop(0)
            if step.depthwise and channels % step.together:
                raise ValueError(f"{channels} channels cannot be convolved in groups of {step.together}")
        return self


class ConvChain(BlockAdapter):
    """conv, BatchNorm, activation, conv, … + skip, activation; each but the last conv's channels are hidden units.

    Where a grouped convolution follows, a unit is a whole group.
    """

    Options: ClassVar[type[BlockOptions]] = ConvChainOptions
    options: ConvChainOptions
    trials: ClassVar[Trials] = (
        {"hidden": [3]},
        {
            "hidden": [3, 2],
            "steps": [{}, {"kernel": 1, "padding": 0, "norm": None, "bias": True}, {"activation": None}],
        },
        {
            "hidden": [5],
            "steps": [
                {"kernel": 1, "padding": 0},
                {"depthwise": True},
                {"kernel": 1, "padding": 0, "activation": None},
            ],
            "final": None,
        },
        {"hidden": [6], "steps": [{}, {"depthwise": True, "together": 2}, {"activation": None}]},
        {
            "axes": 1,
            "hidden": [3],
            "out": 5,
            "steps": [{"stride": 2}, {"activation": None}],
            "skip": "projection",
            "skip_stride": 2,
        },
    )

    @property
    def rectified(self) -> bool:  # type: ignore[override]
        return self.options.final == "relu"

    @property
    def axes(self) -> int:  # type: ignore[override]
        return self.options.axes

    @property
    def keeps_shape(self) -> bool:  # type: ignore[override]
        steps = self.options.steps
        same = all(s.stride == 1 and 2 * s.padding == s.dilation * (s.kernel - 1) and not s.pool for s in steps)
        return same and self.options.out in (None, self.options.channels)

    @property
    def token_width(self) -> int:
        return math.prod([self.options.steps[0].kernel] * self.options.axes)

    def with_sizes(self, sizes: Mapping[str, int]) -> BlockAdapter:
        hidden = [width * sizes.get(f"hidden{i}", size) for i, (size, width) in enumerate(self._units(), 1)]
        return type(self)(self.options.model_copy(update={"hidden": tuple(hidden)}))

    def module(self) -> nn.Module:
        return ConvChainModule(self.options)

    @property
    def readout(self) -> str | None:  # type: ignore[override]
        last = self.options.steps[-1]
        ends_the_branch = self.options.skip == "identity" and not (last.norm or last.activation or last.pool)
        return f"conv{len(self.options.steps)}" if ends_the_branch else None

    def readers(self) -> tuple[Reader, ...]:
        _, *reading = self._dense()
        return tuple(Reader(f"conv{i}", f"bn{i}" if self.options.steps[i - 1].norm else None) for i in reading)

    def symmetries(self) -> tuple[SymmetryGroup, ...]:
        """A group for the units behind each dense convolution but the last."""
        between = self.options.steps[:-1]
        rescale = all(step.activation in ("relu", None) for step in between)
        odd = all(step.activation in ("tanh", None) for step in between)
        signs = odd and not any(step.pool and step.pool.kind == "max" for step in between)
        groups = []
        for number, (size, width) in enumerate(self._units()):
            writer, reader = list(self._dense())[number : number + 2]
            members = list(self._made_by(writer, 1))
            # A depthwise convolution of a unit takes its scale back, so that all behind it stays.
            for i in range(writer + 1, reader):
                members += self._made_by(i, 0, weight=-1 if i == writer + 1 else 0)
            members.append(SymmetryMember(f"conv{reader}.weight", 1, -1 if reader == writer + 1 else 0))
            further = tuple(self._between(i, reader) for i in range(writer + 1, reader))
            groups.append(SymmetryGroup(f"hidden{number + 1}", size, tuple(members), rescale, width, signs, further))
        return tuple(groups)

    def _between(self, number: int, reader: int) -> tuple[SymmetryMember, ...]:
        """The scale of what a depthwise step makes, up to the step that reads it."""
        reads = SymmetryMember(f"conv{number + 1}.weight", 1 if number + 1 == reader else 0, -1)
        return (*self._made_by(number, 1), reads)

    def stream(self) -> tuple[SymmetryMember, ...]:
        steps, (first, *_) = self.options.steps, self._dense()
        if self.options.skip != "identity" or any(step.together > 1 for step in steps[: first - 1]):
            return ()
        # Depthwise convolutions at the beginning run over the channels that enter.
        written = [member for i in (*range(1, first), len(steps)) for member in self._made_by(i, 0)]
        return (SymmetryMember(f"conv{first}.weight", 1), *(SymmetryMember(m.tensor, 0) for m in written))

    def _dense(self) -> Iterator[int]:
        """Numbers, from 1, of the steps that are not depthwise."""
        return (i for i, step in enumerate(self.options.steps, 1) if not step.depthwise)

    def _units(self) -> Iterator[tuple[int, int]]:
        """Of the channels behind each dense step but the last: how many units, and channels of each."""
        for channels, (first, reader) in zip(self.options.hidden, pairwise(self._dense()), strict=True):
            width = math.lcm(*(step.together for step in self.options.steps[first : reader - 1]))
            yield channels // width, width

    def _made_by(self, number: int, scale: int, weight: int | None = None) -> Iterator[SymmetryMember]:
        """Tensors of a step that run over the channels it writes; what makes a unit larger gets `scale`."""
        step = self.options.steps[number - 1]
        conv_scale = 0 if step.norm else scale
        yield SymmetryMember(f"conv{number}.weight", 0, conv_scale if weight is None else weight)
        if step.bias:
            yield SymmetryMember(f"conv{number}.bias", 0, conv_scale)
        if step.norm:
            yield from (SymmetryMember(f"bn{number}.{name}", 0, scale) for name in ("weight", "bias"))
            yield from (SymmetryMember(f"bn{number}.{name}", 0) for name in ("running_mean", "running_var"))


class ConvChainModule(nn.Module, SkipModule):
    """`[batch, channels, *positions]` → `[batch, out, *positions']`."""

    def __init__(self, options: ConvChainOptions) -> None:
        super().__init__()
        self.steps, self.adds = options.steps, options.skip
        widths, channels = [*options.hidden, options.out or options.channels], options.channels
        convolution, norm = LAYERS[options.axes]
        for number, step in enumerate(options.steps, 1):
            out = channels if step.depthwise else widths.pop(0)
            groups = channels // step.together if step.depthwise else 1
            conv = convolution(
                channels, out, step.kernel, step.stride, step.padding, step.dilation, groups, bias=step.bias
            )
            self.add_module(f"conv{number}", conv)
            self.add_module(f"bn{number}", norm(out, step.norm) if step.norm else nn.Identity())
            self.add_module(f"then{number}", _activation_and_pooling(step, options.axes))
            channels = out
        if options.skip == "projection":
            project = convolution(options.channels, channels, 1, options.skip_stride, bias=False)
            self.downsample = nn.Sequential(project, norm(channels))
        self.final = MAKERS[options.final]() if options.final else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.final(self.branch(x) + self.skip(x))
        return output

    def branch(self, x: Tensor) -> Tensor:
        return self._step(len(self.steps), self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """What enters the last convolution: `[batch, channels, *positions]`."""
        for number in range(1, len(self.steps)):
            x = self._step(number, x)
        return x

    def _step(self, number: int, x: Tensor) -> Tensor:
        for name in ("conv", "bn", "then"):
            x = self.get_submodule(f"{name}{number}")(x)
        return x

    def skip(self, x: Tensor) -> Tensor:
        if self.adds == "none":
            return nothing(x)
        return x if self.adds == "identity" else self.downsample(x)


def _activation_and_pooling(step: Step, axes: int) -> nn.Module:
    """Activation and pooling of a step."""
    layers = [MAKERS[step.activation]()] if step.activation else []
    if step.pool is not None:
        kind = POOLS[step.pool.kind][axes - 1]
        layers.append(kind(step.pool.kernel, step.pool.stride, step.pool.padding))
    return nn.Sequential(*layers)
