"""Block adapters that each break one promise. `sound` breaks none, and the others are changes of it."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

import torch
from pydantic import ConfigDict, PositiveInt
from torch import Tensor, nn

from paramtrans import BlockAdapter, BlockOptions, BlockSpec, Component, SymmetryGroup, SymmetryMember, hookimpl
from paramtrans.api.specs import TensorKind
from paramtrans.backends.vmap import Vmap

BROKEN: dict[str, str] = {}
"""Names of classes, each with the check that must fail, and no other."""


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


def breaks(check: str) -> Any:
    """Registers a class as one that fails `check` alone."""

    def named(cls: type) -> type:
        BROKEN[cls.__name__] = check
        return cls

    return named


@breaks("unknown_options_are_refused")
class OptionsIgnored(Sound):
    class Options(Options):
        """Anything goes."""

        model_config = ConfigDict(extra="ignore")


@breaks("options_are_documented")
class OptionUndocumented(Sound):
    class Options(Options):
        """One more."""

        secret: int = 0


@breaks("options_survive_json")
class OptionDoubled(Sound):
    class Options(Options):
        """Every time it is read, another number."""

        width: float = 1.0
        """Twice what was given."""

        def model_post_init(self, context: Any) -> None:
            object.__setattr__(self, "width", 2 * self.width)


@breaks("can_be_built")
class NoTrial(Sound):
    class Options(BlockOptions):
        """Without a default, and no trial on the class."""

        hidden: PositiveInt
        """Hidden channels."""


@breaks("right_kind")
class NoBlock:
    Options = Options
    trials: ClassVar[tuple[dict[str, Any], ...]] = ({},)


@breaks("right_kind")
class HalfDone(BlockAdapter):
    """`module` is missing."""


@breaks("declared_tensors")
class WrongKind(Sound):
    """Says that a bias belongs to a normalisation and follows the data."""

    @cached_property
    def spec(self) -> BlockSpec:
        sound = super().spec
        wrong = (
            type(t)(t.name, t.shape, TensorKind.NORM_MEAN if "expand.b" in t.name else t.kind) for t in sound.tensors
        )
        return BlockSpec(tuple(wrong), sound.symmetries, sound.stream)


@breaks("keeps_the_shape")
class Grows(Sound):
    rectified = False
    readout = None

    class Module(Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.pad(torch.relu(self.branch(x) + x), (1, 1))


@breaks("seeds_decide_the_block")
class OwnRandomness(Sound):
    class Module(Module):
        def __init__(self, channels: int, hidden: int) -> None:
            super().__init__(channels, hidden)
            own = torch.Generator()
            own.seed()
            if not self.expand.weight.is_meta:
                self.expand.weight.data.add_(0.1 * torch.randn(self.expand.weight.shape, generator=own))


@breaks("loads_strictly")
class Lenient(Sound):
    class Module(Module):
        def load_state_dict(self, state: Any, strict: bool = True, assign: bool = False) -> Any:
            return super().load_state_dict(state, strict=False, assign=assign)


@breaks("gradients_reach_every_tensor")
class Detached(Sound):
    class Module(Module):
        def features(self, x: Tensor) -> Tensor:
            return torch.relu(self.norm(self.expand(x))).detach()


@breaks("examples_are_independent")
class MixesExamples(Sound):
    rectified = False
    readout = None

    class Module(Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.branch(x) + x + 0.1 * x.mean(0, keepdim=True))


@breaks("reads_what_it_announces")
class ReadsInPlace(Sound):
    def read(self, params: Any) -> Any:
        params["expand.weight"].mul_(2)
        return params


@breaks("reads_what_it_announces")
class ReadsOthers(Sound):
    def read(self, params: Any) -> Any:
        return {name: tensor / tensor.abs().max() for name, tensor in params.items()}


@breaks("reads_what_it_announces")
class ReadsTooLittle(Sound):
    def read(self, params: Any) -> Any:
        return {name: tensor for name, tensor in params.items() if name != "project.weight"}

    @property
    def reading(self) -> BlockSpec:
        spec = self.spec
        groups = tuple(SymmetryGroup(g.name, g.size, g.members[:-1], g.rescale) for g in spec.symmetries)
        return BlockSpec(spec.tensors, groups, spec.stream)


@breaks("tokens_there_and_back")
class NegativeTokens(Sound):
    @property
    def token_width(self) -> int:
        return -1


class Changed:
    """A layout of its own that computes something else."""

    def __init__(self, module: nn.Module, change: Any) -> None:
        self.run, self.change = Vmap(module), change

    def __call__(self, params: Any, inputs: Tensor, training: bool = False) -> Tensor:
        return self.run(*self.change(params, inputs), training)


@breaks("stacked_equals_plain")
class SwappedAxes(Sound):
    """Height and width change places on the way in, and back on the way out, of one channel alone."""

    def stacked(self) -> Any:
        return Changed(self.module(), lambda params, x: (params, x.flip(-1)))


@breaks("stacked_equals_plain")
class DroppedBias(Sound):
    def stacked(self) -> Any:
        def without(params: Any, x: Tensor) -> Any:
            return {n: t if n != "expand.bias" else torch.zeros_like(t) for n, t in params.items()}, x

        return Changed(self.module(), without)


@breaks("stacked_equals_plain")
class StaleStatistics(Sound):
    def stacked(self) -> Any:
        def copies(params: Any, x: Tensor) -> Any:
            return {n: t.clone() if "running" in n else t for n, t in params.items()}, x

        return Changed(self.module(), copies)


@breaks("branch_is_what_is_added")
class NotRectified(Sound):
    class Module(Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(0.5 * self.branch(x) + x)


@breaks("closing_ends_the_block")
class ClosesWithout(Sound):
    closing = "norm"
    rectified = False


@breaks("positions_are_computed_alone")
class NoPositions(Sound):
    positionwise = True


@breaks("readers_read_what_is_declared")
class OtherFeatures(Sound):
    class Module(Module):
        def features(self, x: Tensor) -> Tensor:
            return self.norm(self.expand(x))

        def branch(self, x: Tensor) -> Tensor:
            return self.project(torch.relu(self.features(x)))


@breaks("readers_complete_the_block")
class NothingBeside(Sound):
    """The readout gives all that leaves the block, where closed forms take it for what is added to the input."""

    rectified = False

    class Module(Module):
        def forward(self, x: Tensor) -> Tensor:
            return self.project(self.features(x))


@breaks("symmetries_leave_the_function")
class WrongSymmetry(Sound):
    """Rows of `project` instead of its columns; both are four."""

    def group(self, members: tuple[SymmetryMember, ...]) -> SymmetryGroup:
        return super().group((*members[:-1], SymmetryMember("project.weight", 0, -1)))


@breaks("symmetries_leave_the_function")
class ForgottenBias(Sound):
    def group(self, members: tuple[SymmetryMember, ...]) -> SymmetryGroup:
        return super().group(tuple(m for m in members if m.tensor != "norm.bias"))


@breaks("symmetries_leave_the_function")
class ScaledTwice(Sound):
    """BatchNorm undoes a scale in front of it."""

    def group(self, members: tuple[SymmetryMember, ...]) -> SymmetryGroup:
        return super().group((SymmetryMember("expand.weight", 0, 1), *members[1:]))


@breaks("symmetries_leave_the_function")
class NoSuchAxis(Sound):
    def group(self, members: tuple[SymmetryMember, ...]) -> SymmetryGroup:
        return super().group((SymmetryMember("expand.weight", 7), *members[1:]))

    @property
    def reading(self) -> BlockSpec:
        return BlockSpec(self.spec.tensors, Sound(self.options).symmetries(), self.spec.stream)


@breaks("reading_keeps_the_symmetries")
class ReadingForgets(Sound):
    """The groups of what is read leave a tensor out."""

    @property
    def reading(self) -> BlockSpec:
        groups = tuple(SymmetryGroup(g.name, g.size, g.members[1:], g.rescale) for g in self.spec.symmetries)
        return BlockSpec(self.spec.tensors, groups, self.spec.stream)


@breaks("stream_is_the_blocks_channels")
class WrongStream(Sound):
    def stream(self) -> tuple[SymmetryMember, ...]:
        return (SymmetryMember("expand.weight", 0), SymmetryMember("project.weight", 0))


@hookimpl
def paramtrans_block_adapters() -> list[Component]:
    names = ["Sound", *BROKEN]
    return [Component(f"{name}Block", "for tests", f"{__name__}:{name}") for name in names]
