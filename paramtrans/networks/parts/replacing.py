"""Parts of a network replaced by blocks of other architectures: a warm start, then feature matching part by part."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import nn

from paramtrans.api.adapter import BlockAdapter
from paramtrans.api.options import BaseOptions, validate
from paramtrans.errors import DataError, SpecMismatch
from paramtrans.evaluation.costs import parameters
from paramtrans.networks.forward.activations import Inputs, call, first_examples
from paramtrans.networks.forward.examples import Examples
from paramtrans.networks.loading.wrappers import copied
from paramtrans.networks.parts.feature_loss import FeatureLoss
from paramtrans.networks.parts.finding import NOT_BY_EXAMPLE, NetworkPart, find_parts
from paramtrans.networks.parts.fitting import Fitted, Fitting
from paramtrans.networks.parts.going_on import go_on_from
from paramtrans.networks.parts.placed import Calling, Placed
from paramtrans.networks.parts.reached import both_passing
from paramtrans.networks.parts.targets import start_block, target_for
from paramtrans.networks.parts.weights import output_weights
from paramtrans.networks.units.chain import UnitStep
from paramtrans.plugins.registry import Registry
from paramtrans.utils import boundary, seeds
from paramtrans.utils.counts import counted
from paramtrans.utils.progress import Reporter

log = logging.getLogger(__name__)

STARTED_ON = 64
"""Examples, of the first batch, that closed forms see."""


class ReplacingOptions(BaseOptions):
    """How blocks of other architectures are fitted to the parts whose place they take."""

    steps: NonNegativeInt = 600
    """Adam steps on each block, to make of what enters it what the part made of what entered that."""
    lr: PositiveFloat = 0.03
    """Learning rate of these at the start, in root mean squares of each tensor; it falls to zero along a cosine."""
    batch: PositiveInt = 64
    """Examples in a step."""
    weigh: bool = False
    """Whether each value that leaves a part counts by how much the outputs depend on it."""

    def settings(self, seed: int) -> Fitting:
        """Steps on one block.

        Args:
            seed: Draws the examples of each.
        """
        return Fitting(self.steps, self.lr, self.batch, seed)


@dataclass(frozen=True)
class ReplacedPart:
    """A part of a translated network that is of another architecture now."""

    path: str
    kind: str
    """Class of the module that it was."""
    target_kind: str
    """Name of the new block's adapter."""
    target: Mapping[str, Any]
    """Its options."""
    parameters: tuple[int, int]
    """Before and after."""
    alone: bool
    """Whether the network gives it features alone, by position."""
    beside: int | None
    """How many `None` it gives beside its features, in a tuple; None: the features alone."""
    started: str
    """`closed form` or `random`."""
    start_error: float | None = None
    """`feature_error` before feature matching."""
    feature_error: float | None = None
    """Mean squared difference of what leaves it and what left the part, over the variance of that, on inputs kept
    aside and behind the blocks replaced before it."""
    held_out: bool | None = None
    """Whether that is so; else the inputs were too few."""
    cache: int | None = None
    """The layer of a cache of earlier positions that is the block's; None: it has no cache."""
    tensors: tuple[str, ...] | None = None
    """Arguments of the part that are tensors beside features, such as masks; with others it is not called. None: not
    known."""

    @property
    def calling(self) -> Calling:
        """How the network calls the block."""
        return Calling(self.alone, self.beside, self.cache, self.tensors)


@dataclass(frozen=True)
class ReplacedNetwork:
    """A network with other blocks, and what was done to it."""

    network: nn.Module
    parts: tuple[ReplacedPart, ...]
    refused: Mapping[str, str]
    """Modules that a pattern names, and that stay as they are, with the reason of each."""


def replace_parts(
    network: nn.Module,
    to: Mapping[str, str],
    options: Mapping[str, Any],
    registry: Registry,
    *,
    ratio: float | None,
    batches: Iterable[Inputs],
    seed: int,
    reporter: Reporter,
    then: Sequence[UnitStep] = (),
) -> ReplacedNetwork:
    """A copy of `network`, which is in eval mode, with parts of it replaced by blocks of other architectures.

    Args:
        network: The network; it is not changed.
        to: For patterns of paths the name of a block adapter, with its options behind a question mark.
        options: Those of `ReplacingOptions`.
        registry: Where adapters are known.
        ratio: The largest share of the part's parameters that a block may have; None: sizes as its adapter says.
        batches: Calibration inputs, at least one batch.
        seed: For whatever is drawn.
        reporter: Shows the progress.
        then: Translators that go on from each block, before the next has its turn.

    Raises:
        SpecMismatch: no module is such a part, or a block does not fit in its place.
    """
    fitting_options = validate(ReplacingOptions, dict(options), "to: ")
    batch_list = list(batches)
    if not batch_list:
        raise SpecMismatch(
            "to: blocks are fitted to what parts compute; give a few dozen unlabelled inputs (calibrate)"
        )
    examples = Examples(batch_list)
    if not examples.enough:
        log.warning(examples.too_few())
    first = first_examples(next(iter(examples.fitted())), STARTED_ON)
    parts, refused = _parts(network, to, first)
    targets = [target_for(part, to[part.pattern], ratio, registry) for part in parts]
    _check_places(network, parts, targets, first)
    weights = output_weights(network, [part.part.path for part in parts], first) if fitting_options.weigh else {}
    smaller, replaced, blocks = copy.deepcopy(network), list[ReplacedPart](), list[nn.Module]()
    with (
        reporter.stage(f"replacing {counted(len(parts), 'block')}", len(parts)) as stage,
        both_passing(network, smaller, first, batch_list, [part.part.path for part in parts]) as reached_parts,
    ):
        for number, (part, target, reached) in enumerate(zip(parts, targets, reached_parts, strict=True)):
            if [len(features) for features in reached.leaving] != list(examples.sizes):
                raise SpecMismatch(f"to: {part.part.path}: {NOT_BY_EXAMPLE}")
            block, start = start_block(reached.seen(part), target, seeds.derive(seed, "start", number))
            settings = fitting_options.settings(seeds.derive(seed, "matching", number))
            loss = FeatureLoss(block, reached.entering, reached.leaving, weights.get(part.part.path))
            fitted = loss.fit(examples, settings)
            if then:
                features = reached.entering, reached.leaving
                go_on_from(block, part.part.path, features, examples, then, seeds.derive(seed, "then", number))
                fitted = replace(fitted, after=loss.error(examples))
            reached.go_on(Placed(block, part.calling))
            record = _described(part, target, block, start, fitted, registry)
            replaced.append(replace(record, held_out=examples.enough))
            blocks.append(block)
            stage.advance(note=part.part.path)
    for part, block in zip(parts, blocks, strict=True):
        part.put(smaller, block)
    return ReplacedNetwork(smaller, tuple(replaced), refused)


def _check_places(
    network: nn.Module, parts: Sequence[NetworkPart], targets: Sequence[BlockAdapter], batch: Inputs
) -> None:
    """Raise unless the network runs with other blocks in the places of parts: its code may ask more of these."""
    other = copied(network, share=True)
    for part, target in zip(parts, targets, strict=True):
        part.put(other, target.module().eval().to(part.part.entering))
    try:
        with torch.no_grad():
            call(other, first_examples(batch, 2))
    except DataError as error:
        paths = ", ".join(part.part.path for part in parts[:3])
        raise SpecMismatch(
            f"to: the network does not run with another block in the place of {paths}: "
            f"{boundary.reason(error.__cause__ or error)}; its code asks more "
            "of what stands there than to be called; replace a part inside it, or around it"
        ) from error


def _parts(network: nn.Module, to: Mapping[str, str], batch: Inputs) -> tuple[list[NetworkPart], dict[str, str]]:
    """The parts to replace, at least one, and by path the reason why other modules are none."""
    parts, refused = find_parts(network, to, batch)
    if not parts:
        raise SpecMismatch(f"to: {'; '.join(f'{path}: {reason}' for path, reason in list(refused.items())[:3])}")
    for path, reason in refused.items():
        log.warning("%s stays as it is: %s", path, reason)
    return parts, refused


def _described(
    part: NetworkPart, target: BlockAdapter, block: nn.Module, start: str, fitted: Fitted, registry: Registry
) -> ReplacedPart:
    return ReplacedPart(
        part.part.path,
        type(part.part.module).__name__,
        registry.name_of("block_adapter", type(target)),
        target.options.model_dump(mode="json"),
        (parameters(part.part.module), parameters(block)),
        part.calling.alone,
        part.calling.beside,
        start,
        fitted.before,
        fitted.after,
        cache=part.calling.cache,
        tensors=part.calling.tensors,
    )
