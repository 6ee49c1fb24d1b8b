"""Feature matching: a few hundred stacked optimiser steps on all of the target's parameters.

Features are matched as in FitNets (Romero et al., 2015, arXiv 1412.6550, Eq. 3), outputs as in knowledge distillation
(Hinton et al., 2015, arXiv 1503.02531), both without labels.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from paramtrans.api import stacking as stacks
from paramtrans.api.adapter import BlockAdapter
from paramtrans.api.context import Context
from paramtrans.api.options import BaseOptions, Trials
from paramtrans.api.stacking import Params
from paramtrans.api.translator import Translator
from paramtrans.api.units import UnitCase, UnitPiece
from paramtrans.backends.vmap import block_stacked
from paramtrans.errors import SpecMismatch
from paramtrans.ops.distances import divergence, relative_error
from paramtrans.ops.sensitivity import sensitivity
from paramtrans.utils import seeds
from paramtrans_matching.search import Search, start_like
from paramtrans_matching.start import fresh, revive_dead_units
from paramtrans_matching.units import match_units

log = logging.getLogger(__name__)

Latter = Callable[[Tensor], Tensor] | None
"""What follows the slot, as a function of features; None where outputs are not matched."""

MANY = 64
"""Probes of which an eighth is enough to keep aside."""
MODELS_AT_ONCE, VALUES_AT_ONCE = 16, 2**30
"""What enters and leaves source blocks on all probes is kept for this many models at a time, or for as many as have
`VALUES_AT_ONCE` values: 4 GiB."""


class MatchingOptions(BaseOptions):
    """How long and what is matched."""

    steps: PositiveInt = 300
    """Adam steps."""
    lr: PositiveFloat | None = None
    """Learning rate at the start; it falls to zero along a cosine. By default, for each model, what does best in its
    first steps on probes kept aside: of rates relative to the mean square of each tensor, or none."""
    batch: PositiveInt = 64
    """Probes in a step, other ones in each until all have had their turn; of blocks that compute each position alone,
    positions."""
    features: NonNegativeFloat = 1.0
    """Share of the squared error to what the source block computes, relative to its variance."""
    outputs: NonNegativeFloat = 0.0
    """Share of the Kullback-Leibler divergence from the source network's output probabilities: distillation."""
    weigh: bool = False
    """Whether each feature counts by how much the network's outputs depend on it (measured in the source network)."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.features or self.outputs):
            raise ValueError("features and outputs are both 0; give one of them a share")
        return self


@dataclass(frozen=True)
class MatchingExamples:
    """What enters the target blocks, and what these and the hosts should give for it, `[models, n, ...]` each."""

    entering: Tensor
    features: Tensor
    outputs: Tensor | None
    weights: Tensor | None
    """What each feature counts, `[models, 1, ...]`; None: all alike."""


class Matching(Translator):
    """Starts from the context's `start`, else from a default initialisation; takes and writes any family.

    A part of the probes is kept aside; each model ends where it was nearest on these, which may be where it started. Of
    units of any network it keeps, alone, the strongest.
    """

    Options: ClassVar[type[BaseOptions]] = MatchingOptions
    options: MatchingOptions
    trials: ClassVar[Trials] = ({"steps": 3, "batch": 4, "lr": 0.01},)
    needs_probes: ClassVar[bool] = True
    keeps_units: ClassVar[bool] = True
    adjusts_units: ClassVar[bool] = True

    def __init__(self, options: MatchingOptions, source: BlockAdapter, target: BlockAdapter) -> None:
        super().__init__(options, source, target)
        self.run_source, self.run_target = block_stacked(source), block_stacked(target)
        self.trained = [tensor.name for tensor in target.spec.tensors if tensor.trained]

    @classmethod
    def keep(cls, options: BaseOptions, case: UnitCase) -> Tensor:
        return case.best(case.strengths())

    @classmethod
    def adjust(cls, options: BaseOptions, piece: UnitPiece) -> Mapping[str, Tensor]:
        assert isinstance(options, MatchingOptions)
        if options.outputs or options.weigh:
            raise SpecMismatch("matching.outputs and matching.weigh look at hosts of a task alone; leave them out")
        return match_units(piece, options.steps, options.lr, options.batch)

    def translate(self, source: Params, context: Context | None = None) -> Params:
        stacks.check(source, self.source.spec, "the source blocks")
        if context is None:
            raise SpecMismatch("matching compares what blocks compute; give it a context with probes")
        if context.hosts is None:
            return self._match(source, context)
        pieces = torch.arange(len(context.hosts)).split(_models_at_once(context))
        return stacks.concatenate([self._match(stacks.take(source, p.tolist()), context.pick(p)) for p in pieces])

    def _match(self, source: Params, context: Context) -> Params:
        examples = self._matching_examples(source, context)
        latter = self._latter(context)
        original = self._start(context, examples)
        start = revive_dead_units(self.target, original, examples.entering, context)
        to_fit, aside = _kept_aside(examples.entering.shape[1])
        search = Search(
            start,
            self.trained,
            lambda params, chosen: self._distance(params, examples, latter, chosen),
            _batches(to_fit, self.options.batch, context.seed),
            aside.split(self.options.batch),
        )
        lr = self.options.lr
        rates = search.relative_rates() if lr is None else start_like(start, lr)
        matched, better = search.run(rates, self.options.steps, original)
        if not better.all():
            log.warning(
                "matching: %d of %d blocks stay as they came: no step brought them nearer on probes kept aside; give "
                "more probes, or another rate (lr)",
                int((~better).sum()),
                len(better),
            )
        return matched

    @torch.no_grad()
    def _matching_examples(self, source: Params, context: Context) -> MatchingExamples:
        latter = self._latter(context)
        reached, features_of_pieces, outputs_of_pieces = list[Tensor](), list[Tensor](), list[Tensor]()
        for piece in context.entering():
            reached.append(self._as_examples(piece.reached))
            features_of_pieces.append(self._as_examples(self.run_source(source, piece.original)))
            outputs_of_pieces += [] if latter is None else [latter(features_of_pieces[-1])]
        if len({tensor.shape[2:] for tensor in reached}) != 1:
            raise SpecMismatch("matching takes probes of one size, and at least one; these are of several, or none")
        features = _in_one(features_of_pieces)
        outputs = _in_one(outputs_of_pieces) if outputs_of_pieces else None
        return MatchingExamples(_in_one(reached), features, outputs, self._weights(features, context))

    def _weights(self, features: Tensor, context: Context) -> Tensor | None:
        if not self.options.weigh:
            return None
        if context.hosts is None or context.runner is None:
            raise SpecMismatch(
                "matching.weigh: it is hosts whose outputs depend on features; give some, or leave it out"
            )
        return sensitivity(context.runner.latter, context.hosts.latter, features)[:, None]

    def _as_examples(self, features: Tensor) -> Tensor:
        """`[models, examples, ...]`, where positions are examples if both blocks compute each alone."""
        positions_differ = self.options.outputs or self.options.weigh
        alone = self.source.positionwise and self.target.positionwise and not positions_differ
        return features.flatten(1, -2) if alone else features

    @torch.no_grad()
    def _start(self, context: Context, examples: MatchingExamples) -> Params:
        start = context.start
        if start is None:
            initialised = fresh(self.target, context, len(examples.entering))
            start = {name: tensor.to(examples.entering.device) for name, tensor in initialised.items()}
        return start

    def _latter(self, context: Context) -> Latter:
        if not self.options.outputs:
            return None
        if context.hosts is None or context.runner is None:
            raise SpecMismatch("matching.outputs: the outputs are those of hosts; give a context with hosts, or set 0")
        run, params = context.runner.latter, context.hosts.latter

        def latter(features: Tensor) -> Tensor:
            outputs = run(params, features)
            if outputs.shape[-1] < 2:
                raise SpecMismatch("matching.outputs: there is one output, which is no scores of classes; set 0")
            return outputs

        return latter

    def _distance(self, params: Params, examples: MatchingExamples, latter: Latter, chosen: Tensor) -> Tensor:
        """What is matched, on some of the probes: `[models]`."""
        features = self.run_target(params, examples.entering[:, chosen])
        distance = features.new_zeros(len(features))
        if self.options.features:
            distance = distance + self.options.features * relative_error(
                features, examples.features[:, chosen], examples.weights
            )
        if latter is not None and examples.outputs is not None:
            distance = distance + self.options.outputs * divergence(latter(features), examples.outputs[:, chosen])
        return distance


def _in_one(pieces: list[Tensor]) -> Tensor:
    """All probes of the pieces, `[models, n, ...]`; the list is emptied, as memory for both need not be held."""
    joined = torch.cat(pieces, dim=1)
    pieces.clear()
    return joined


def _models_at_once(context: Context) -> int:
    """Models whose features on all probes are kept together."""
    if context.inputs is None or context.runner is None:
        return MODELS_AT_ONCE  # without probes, matching says so
    task = context.runner.task
    of_example = math.prod(task.slot.shape) + math.prod(task.leaving().shape)
    values = of_example * context.inputs.shape[int(context.own_inputs)]
    return max(1, min(MODELS_AT_ONCE, VALUES_AT_ONCE // max(1, values)))


def _kept_aside(count: int) -> tuple[Tensor, Tensor]:
    """Numbers of the probes that are fitted to, and of the last eighth, or quarter of few, that is kept aside; of fewer
    than four none is, and all are both."""
    numbers = torch.arange(count)
    held_out = count // (8 if count >= MANY else 4)
    return (numbers[:-held_out], numbers[-held_out:]) if held_out else (numbers, numbers)


def _batches(numbers: Tensor, size: int, seed: int) -> Iterator[Tensor]:
    """Endless batches of probe numbers, each probe once a round, in an order drawn from `seed`."""
    generator = torch.Generator().manual_seed(seeds.derive(seed, "matching"))
    while True:
        yield from numbers[torch.randperm(len(numbers), generator=generator)].split(size)
