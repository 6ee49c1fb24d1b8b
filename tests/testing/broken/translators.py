"""Translators that each break one promise. `sound_translator` breaks none, and the others are changes of it.

`breaks` names the check that a class must fail, and no other.
"""

from __future__ import annotations

from itertools import count
from typing import Any, ClassVar

import torch
from paramtrans_refit.without import Prune
from torch import Tensor, nn

from paramtrans import BaseOptions, Component, LearnedTranslator, TokenTranslator, hookimpl
from paramtrans.api.units import UnitCase, UnitPiece
from paramtrans.errors import SpecMismatch
from paramtrans.ops.tokens import TokenLayout
from paramtrans.translators.base import TokenOptions


class Sound(TokenTranslator):
    """One linear layer from all tokens to all tokens."""

    Options: ClassVar[type[TokenOptions]] = TokenOptions

    def build(self, source: tuple[int, int], target: tuple[int, int]) -> nn.Module:
        sizes = source[0] * source[1], target[0] * target[1]
        return nn.Sequential(nn.Flatten(1), nn.Linear(*sizes), nn.Unflatten(1, target))


class SoundFamilies(Sound):
    """Another of these for each family that is added."""

    def __init__(self, options: Any, source: Any, target: Any) -> None:
        super().__init__(options, source, target)
        self.others = nn.ModuleList()

    def start(self, reading: Any, context: Any) -> None:
        super().start(reading, context)
        for other in self.others:
            other.start(reading, context)

    @property
    def families(self) -> Any:
        return (self.target, *(other.target for other in self.others))

    def add_family(self, target: Any) -> None:
        if all(family.spec != target.spec for family in self.families):
            self.others.append(Sound(self.options, self.source, target))

    def resized(self, source: Any, target: Any) -> Any:
        for translator in (self, *self.others):
            if (translator.source.spec, translator.target.spec) == (source.spec, target.spec):
                return translator
        raise SpecMismatch("not one of these")


class MixesFamiliesUp(SoundFamilies):
    breaks = "families_stand_beside_each_other"

    def resized(self, source: Any, target: Any) -> Any:
        copied = super().resized(source, target)
        return self.others[-1] if len(self.others) else copied


class FailsUnclearly(Sound):
    breaks = "refuses_clearly"

    def __init__(self, options: Any, source: Any, target: Any) -> None:
        super().__init__(options, source, target)
        if type(source) is not type(target):
            raise ValueError("no")


class WrongShapes(Sound):
    breaks = "writes_what_is_declared"

    def forward(self, reading: Any, context: Any = None) -> Any:
        return {name: tensor.flatten(1) for name, tensor in super().forward(reading, context).items()}


class NegativeVariance(Sound):
    breaks = "writes_what_is_declared"

    def forward(self, reading: Any, context: Any = None) -> Any:
        return {name: -t if "var" in name else t for name, t in super().forward(reading, context).items()}


class DetachedInput(Sound):
    breaks = "gradients_reach_every_input"

    def forward(self, reading: Any, context: Any = None) -> Any:
        return super().forward({name: tensor.detach() for name, tensor in reading.items()}, context)


class UnusedWeight(Sound):
    breaks = "gradients_reach_every_input"

    def __init__(self, options: Any, source: Any, target: Any) -> None:
        super().__init__(options, source, target)
        self.unused = nn.Parameter(torch.zeros(3))


class BatchDependent(Sound):
    breaks = "models_are_independent"

    def forward(self, reading: Any, context: Any = None) -> Any:
        return super().forward({name: t - 0.1 * t.mean(0) for name, t in reading.items()}, context)


class NotDeterministic(Sound):
    breaks = "same_seed_same_translation"

    def forward(self, reading: Any, context: Any = None) -> Any:
        return super().forward({name: t * (1 + torch.rand(())) for name, t in reading.items()}, context)


class InPlace(Sound):
    breaks = "translating_leaves_no_trace"

    def translate(self, source: Any, context: Any = None) -> Any:
        next(iter(source.values())).mul_(2)
        return super().translate(source, context)


class KeepsTheGraph(Sound):
    breaks = "translating_leaves_no_trace"

    def translate(self, source: Any, context: Any = None) -> Any:
        return self.forward(self.source.read(source), context)


class LeavesTraining(Sound):
    breaks = "translating_leaves_no_trace"

    def translate(self, source: Any, context: Any = None) -> Any:
        self.eval()
        return super().translate(source, context)


class ForgetsStatistics(Sound):
    """What `start` found is kept outside the state."""

    breaks = "saved_and_loaded_it_is_the_same"

    def start(self, reading: Any, context: Any) -> None:
        self.spread = 1 + self.reads.pack(reading).abs().mean()

    def forward(self, reading: Any, context: Any = None) -> Any:
        spread = getattr(self, "spread", 1.0)
        return super().forward({name: tensor / spread for name, tensor in reading.items()}, context)


class DividesByNothing(Sound):
    breaks = "sources_that_never_vary_do_no_harm"

    def start(self, reading: Any, context: Any) -> None:
        tokens = self.reads.pack(reading)
        self.mean.copy_(tokens.mean(0))
        spread = tokens.std((0, 2), correction=0)[:, None]
        self.deviation.copy_(torch.where(spread.expand_as(self.deviation) == 0, 0, spread))


class Truncated(TokenLayout):
    """Rounds down where it should round up, so that the last values are lost."""

    def pack(self, params: Any) -> Tensor:
        tokens = super().pack(params).clone()
        tokens[:, -1] = 0
        return tokens


class TokensLost(Sound):
    """Reads what it is given, but by tokens that are not all of it."""

    breaks = "tokens_are_the_blocks"

    def __init__(self, options: Any, source: Any, target: Any) -> None:
        super().__init__(options, source, target)
        self.whole, self.reads = self.reads, Truncated(source.reading.tensors, self.reads.width)

    def start(self, reading: Any, context: Any) -> None:
        self.mean.copy_(self.whole.pack(reading).mean(0))

    def forward(self, reading: Any, context: Any = None) -> Any:
        lost, self.reads = self.reads, self.whole
        try:
            return super().forward(reading, context)
        finally:
            self.reads = lost


class NeedsProbesSilently(Sound):
    breaks = "asks_for_probes"

    def translate(self, source: Any, context: Any = None) -> Any:
        for _ in context.entering():
            break
        return super().translate(source, context)


class NeedsNone(Sound):
    breaks = "asks_for_probes"
    needs_probes: ClassVar[bool] = True


class HalfDone(LearnedTranslator):
    """`forward` is missing."""

    breaks = "right_kind"


class OptionsIgnored(Sound):
    breaks = "unknown_options_are_refused"

    class Options(TokenOptions):
        """Anything goes."""

        model_config: ClassVar[Any] = {**TokenOptions.model_config, "extra": "ignore"}


class Backbone(nn.Module):
    """One linear layer from all tokens to some, and one that is made after it and stands before it."""

    def __init__(self, source: tuple[int, int], count: int, width: int, turned: bool = False) -> None:
        super().__init__()
        self.shape, size = (count, width), source[0] * source[1]
        if turned:
            self.second, self.first = nn.Linear(size, count * width), nn.Linear(size, size)
        else:
            self.first, self.second = nn.Linear(size, size), nn.Linear(size, count * width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.second(self.first(tokens.flatten(1))).view(-1, *self.shape)


class OneToken(Sound):
    """It would stand for all of them."""

    breaks = "refuses_clearly"

    def build(self, source: tuple[int, int], target: tuple[int, int]) -> nn.Module:
        return Backbone(source, 1, target[1])


class TwoTooMany(Sound):
    """They would be cut off."""

    breaks = "refuses_clearly"

    def build(self, source: tuple[int, int], target: tuple[int, int]) -> nn.Module:
        return Backbone(source, target[0] + 2, target[1])


class WritersTurned(Sound):
    """The last layer that is made is not the last that writes."""

    breaks = "fresh_it_writes_its_template"

    def build(self, source: tuple[int, int], target: tuple[int, int]) -> nn.Module:
        return Backbone(source, *target, turned=True)


class NoWriter(Sound):
    breaks = "refuses_clearly"

    def build(self, source: tuple[int, int], target: tuple[int, int]) -> nn.Module:
        return nn.Flatten(1)


class OutOfOrder(Prune):
    """Keeps the right units, the last first."""

    breaks = "chooses_units"

    @classmethod
    def keep(cls, options: BaseOptions, case: UnitCase) -> Tensor:
        return super().keep(options, case).flip(0)


class OthersEachTime(Prune):
    """Keeps other units whenever it is asked."""

    breaks = "translates_any_network"
    asked = count()

    @classmethod
    def keep(cls, options: BaseOptions, case: UnitCase) -> Tensor:
        return ((torch.arange(case.count) + next(cls.asked)) % len(case)).sort().values


class OtherShapes(Prune):
    """Writes something else than what stands there."""

    breaks = "goes_on_from_units"
    keeps_units, adjusts_units = False, True

    @classmethod
    def adjust(cls, options: BaseOptions, piece: UnitPiece) -> dict[str, Tensor]:
        return {name: tensor.flatten() for name, tensor in piece.params.items()}


@hookimpl
def paramtrans_translators() -> list[Component]:
    names = [
        "Sound",
        "SoundFamilies",
        *(name for name, value in globals().items() if "breaks" in getattr(value, "__dict__", ())),
    ]
    return [Component(f"{name}Translator", "for tests", f"{__name__}:{name}") for name in names]
