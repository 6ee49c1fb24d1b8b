"""Block adapters that each break one promise. `sound` breaks none, and the others are changes of it.

`breaks` names the check that a class must fail, and no other.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from pydantic import ConfigDict, PositiveInt
from torch import Tensor, nn

from paramtrans import BlockAdapter, BlockOptions, BlockSpec, Component, SymmetryGroup, SymmetryMember, hookimpl
from paramtrans.api.adapter import Recognised
from paramtrans.api.specs import RotationGroup, TensorKind
from paramtrans.backends.vmap import Vmap


class Options(BlockOptions):
    """Sizes."""

    hidden: PositiveInt = 4
    """Hidden channels."""


class Module(nn.Module):
    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(channels, hidden, 1)
        self.norm = nn.BatchNorm2d(hidden)
        self.project = nn.Conv2d(hidden, channels, 1, bias=False)

    def features(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.expand(x)))

    def branch(self, x: Tensor) -> Tensor:
        return self.project(self.features(x))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.branch(x) + x)


class Sound(BlockAdapter):
    """Pointwise, BatchNorm, ReLU, pointwise, + input, ReLU."""

    Options: ClassVar[type[BlockOptions]] = Options
    options: Options
    rectified: ClassVar[bool] = True
    readout: ClassVar[str | None] = "project"
    Module: ClassVar[Any] = Module

    def module(self) -> nn.Module:
        return self.Module(self.options.channels, self.options.hidden)

    def symmetries(self) -> tuple[SymmetryGroup, ...]:
        still = ("expand.weight", "expand.bias", "norm.running_mean", "norm.running_var")
        members = [SymmetryMember(name, 0) for name in still]
        members += [SymmetryMember("norm.weight", 0, 1), SymmetryMember("norm.bias", 0, 1)]
        return (self.group((*members, SymmetryMember("project.weight", 1, -1))),)

    def group(self, members: tuple[SymmetryMember, ...]) -> SymmetryGroup:
        return SymmetryGroup("hidden", self.options.hidden, members, rescale=True)

    def stream(self) -> tuple[SymmetryMember, ...]:
        return (SymmetryMember("expand.weight", 1), SymmetryMember("project.weight", 0))


class OptionsIgnored(Sound):
    breaks = "unknown_options_are_refused"

    class Options(Options):
        """Anything goes."""

        model_config = ConfigDict(extra="ignore")


class OptionUndocumented(Sound):
    breaks = "options_are_documented"

    class Options(Options):
        """One more."""

        secret: int = 0


class OptionDoubled(Sound):
    breaks = "options_survive_json"

    class Options(Options):
        """Every time it is read, another number."""

        width: float = 1.0
        """Twice what was given."""

        def model_post_init(self, context: Any) -> None:
            object.__setattr__(self, "width", 2 * self.width)


class NoTrial(Sound):
    breaks = "can_be_built"

    class Options(BlockOptions):
        """Without a default, and no trial on the class."""

        hidden: PositiveInt
        """Hidden channels."""


class NoBlock:
    breaks = "right_kind"
    Options = Options
    trials: ClassVar[tuple[dict[str, Any], ...]] = ({},)


class HalfDone(BlockAdapter):
    """`module` is missing."""

    breaks = "right_kind"


class WrongKind(Sound):
    """Says that a bias belongs to a normalisation and follows the data."""

    breaks = "declared_tensors"

    @cached_property
    def spec(self) -> BlockSpec:
        sound = super().spec
        wrong = (
            type(t)(t.name, t.shape, TensorKind.NORM_MEAN if "expand.b" in t.name else t.kind) for t in sound.tensors
        )
        return BlockSpec(tuple(wrong), sound.symmetries, sound.stream)


class Grows(Sound):
    breaks = "keeps_the_shape"
    rectified = False
    readout = None

    class Module(Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.pad(torch.relu(self.branch(x) + x), (1, 1))


class OwnRandomness(Sound):
    breaks = "seeds_decide_the_block"

    class Module(Module):
        def __init__(self, channels: int, hidden: int) -> None:
            super().__init__(channels, hidden)
            generator = torch.Generator()
            generator.seed()
            if not self.expand.weight.is_meta:
                self.expand.weight.data.add_(0.1 * torch.randn(self.expand.weight.shape, generator=generator))


class Lenient(Sound):
    breaks = "loads_strictly"

    class Module(Module):
        def load_state_dict(self, state: Any, strict: bool = True, assign: bool = False) -> Any:
            return super().load_state_dict(state, strict=False, assign=assign)


class Detached(Sound):
    breaks = "gradients_reach_every_tensor"

    class Module(Module):
        def features(self, x: Tensor) -> Tensor:
            return torch.relu(self.norm(self.expand(x))).detach()


class MixesExamples(Sound):
    breaks = "examples_are_independent"
    rectified = False
    readout = None

    class Module(Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.branch(x) + x + 0.1 * x.mean(0, keepdim=True))


class ReadsInPlace(Sound):
    breaks = "reads_what_it_announces"

    def read(self, params: Any) -> Any:
        params["expand.weight"].mul_(2)
        return params


class ReadsOthers(Sound):
    breaks = "reads_what_it_announces"

    def read(self, params: Any) -> Any:
        return {name: tensor / tensor.abs().max() for name, tensor in params.items()}


class ReadsTooLittle(Sound):
    breaks = "reads_what_it_announces"

    def read(self, params: Any) -> Any:
        return {name: tensor for name, tensor in params.items() if name != "project.weight"}

    @property
    def reading(self) -> BlockSpec:
        spec = self.spec
        groups = tuple(SymmetryGroup(g.name, g.size, g.members[:-1], g.rescale) for g in spec.symmetries)
        return BlockSpec(spec.tensors, groups, spec.stream)


class NegativeTokens(Sound):
    breaks = "tokens_there_and_back"

    @property
    def token_width(self) -> int:
        return -1


class Changed:
    """A layout of its own that computes something else."""

    def __init__(self, module: nn.Module, change: Any) -> None:
        self.run, self.change = Vmap(module), change

    def __call__(self, params: Any, inputs: Tensor, training: bool = False) -> Tensor:
        return self.run(*self.change(params, inputs), training)


class SwappedAxes(Sound):
    """Height and width change places on the way in, and back on the way out, of one channel alone."""

    breaks = "stacked_equals_plain"

    def stacked(self) -> Any:
        return Changed(self.module(), lambda params, x: (params, x.flip(-1)))


class DroppedBias(Sound):
    breaks = "stacked_equals_plain"

    def stacked(self) -> Any:
        def without(params: Any, x: Tensor) -> Any:
            return {n: t if n != "expand.bias" else torch.zeros_like(t) for n, t in params.items()}, x

        return Changed(self.module(), without)


class StaleStatistics(Sound):
    breaks = "stacked_equals_plain"

    def stacked(self) -> Any:
        def copies(params: Any, x: Tensor) -> Any:
            return {n: t.clone() if "running" in n else t for n, t in params.items()}, x

        return Changed(self.module(), copies)


class NotRectified(Sound):
    breaks = "branch_is_what_is_added"

    class Module(Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(0.5 * self.branch(x) + x)


class ClosesWithout(Sound):
    breaks = "closing_ends_the_block"
    closing = "norm"
    rectified = False


class NoPositions(Sound):
    breaks = "positions_are_computed_alone"
    positionwise = True


class OtherFeatures(Sound):
    breaks = "readers_read_what_is_declared"

    class Module(Module):
        def features(self, x: Tensor) -> Tensor:
            return self.norm(self.expand(x))

        def branch(self, x: Tensor) -> Tensor:
            return self.project(torch.relu(self.features(x)))


class NothingBeside(Sound):
    """The readout gives all that leaves the block, where closed forms take it for what is added to the input."""

    breaks = "readers_complete_the_block"

    rectified = False

    class Module(Module):
        def forward(self, x: Tensor) -> Tensor:
            return self.project(self.features(x))


class NoBranch(Sound):
    """Says what enters the readout, and not what it adds."""

    breaks = "survives_translation"
    rectified = False

    class Module(nn.Module):
        def __init__(self, channels: int, hidden: int) -> None:
            super().__init__()
            self.expand, self.norm = nn.Conv2d(channels, hidden, 1), nn.BatchNorm2d(hidden)
            self.project = nn.Conv2d(hidden, channels, 1, bias=False)

        def features(self, x: Tensor) -> Tensor:
            return torch.relu(self.norm(self.expand(x)))

        def forward(self, x: Tensor) -> Tensor:
            return self.project(self.features(x)) + x


class OneSize(Sound):
    """Whatever sizes are asked for, it keeps its own."""

    breaks = "survives_translation"

    def with_sizes(self, sizes: Any) -> Any:
        return self


class OtherLayers(Sound):
    """Recognises a block whose hidden units pass no ReLU."""

    breaks = "survives_translation"

    class Module(Module):
        pass

    @classmethod
    def recognise(cls, module: Any) -> Any:
        if not isinstance(module, cls.Module):
            return ()
        options = {"channels": module.project.out_channels, "hidden": module.project.in_channels}
        return [Recognised(options, {"expand": "expand", "norm": "norm", "project": "expand"}, whole=True)]


class WrongSymmetry(Sound):
    """Rows of `project` instead of its columns; both are four."""

    breaks = "symmetries_leave_the_function"

    def group(self, members: tuple[SymmetryMember, ...]) -> SymmetryGroup:
        return super().group((*members[:-1], SymmetryMember("project.weight", 0, -1)))


class ForgottenBias(Sound):
    breaks = "symmetries_leave_the_function"

    def group(self, members: tuple[SymmetryMember, ...]) -> SymmetryGroup:
        return super().group(tuple(m for m in members if m.tensor != "norm.bias"))


class ScaledTwice(Sound):
    """BatchNorm undoes a scale in front of it."""

    breaks = "symmetries_leave_the_function"

    def group(self, members: tuple[SymmetryMember, ...]) -> SymmetryGroup:
        return super().group((SymmetryMember("expand.weight", 0, 1), *members[1:]))


class NoSuchAxis(Sound):
    breaks = "symmetries_leave_the_function"

    def group(self, members: tuple[SymmetryMember, ...]) -> SymmetryGroup:
        return super().group((SymmetryMember("expand.weight", 7), *members[1:]))

    @property
    def reading(self) -> BlockSpec:
        return BlockSpec(self.spec.tensors, Sound(self.options).symmetries(), self.spec.stream)


class ReadingForgets(Sound):
    """The groups of what is read leave a tensor out."""

    breaks = "reading_keeps_the_symmetries"

    @property
    def reading(self) -> BlockSpec:
        groups = tuple(SymmetryGroup(g.name, g.size, g.members[1:], g.rescale) for g in self.spec.symmetries)
        return BlockSpec(self.spec.tensors, groups, self.spec.stream)


class WrongStream(Sound):
    breaks = "stream_is_the_blocks_channels"

    def stream(self) -> tuple[SymmetryMember, ...]:
        return (SymmetryMember("expand.weight", 0), SymmetryMember("project.weight", 0))


@hookimpl
def paramtrans_block_adapters() -> list[Component]:
    names = ["Sound", *(name for name, value in globals().items() if "breaks" in getattr(value, "__dict__", ()))]
    return [Component(f"{name}Block", "for tests", f"{__name__}:{name}") for name in names]


class ReluOfBothSigns(Sound):
    """A ReLU is not odd."""

    breaks = "symmetries_leave_the_function"

    def group(self, members: tuple[SymmetryMember, ...]) -> SymmetryGroup:
        return replace(super().group(members), signs=True)


class SecondScaleOfGainAlone(Sound):
    """A second scale leaves the bias behind."""

    breaks = "symmetries_leave_the_function"

    def group(self, members: tuple[SymmetryMember, ...]) -> SymmetryGroup:
        alone = (SymmetryMember("norm.weight", 0, 1), SymmetryMember("project.weight", 1, -1))
        return replace(super().group(members), further=(alone,))


class RotatedThroughRelu(Sound):
    """What a ReLU stands between may not be rotated."""

    breaks = "rotations_leave_the_function"

    def rotations(self) -> tuple[RotationGroup, ...]:
        [group] = self.symmetries()
        return (RotationGroup("hidden", 1, group.size, group.members),)


class OptionsThatRaise(Sound):
    """It takes every part for a sequence of tokens."""

    breaks = "takes_its_own_place"

    @classmethod
    def options_for(cls, part: Any) -> dict[str, Any]:
        return {"channels": part.entering.shape[9]}


class NoSuchOptions(Sound):
    breaks = "takes_its_own_place"

    @classmethod
    def options_for(cls, part: Any) -> dict[str, Any]:
        return {"channel": 4}


class StartOfAnotherShape(Sound):
    """Without the axis of models."""

    breaks = "takes_its_own_place"

    def warm_start(self, part: Any) -> dict[str, Tensor]:
        return {"expand.weight": torch.zeros_like(self.module().state_dict()["expand.weight"])}
