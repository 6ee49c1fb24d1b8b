"""A network with other blocks, what is said of them, and how it is handed over."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan

from torch import nn

from paramtrans.networks.blocks.finding import some_of
from paramtrans.networks.depth.left_out import LeftOut
from paramtrans.networks.files import ATTRIBUTE, MODULES, REFUSED, SHAPES, SIZES, Replaced
from paramtrans.networks.graph.narrow import Setting
from paramtrans.networks.graph.numbers import uncount
from paramtrans.networks.loading.architectures import lean
from paramtrans.networks.parts.replacing import ReplacedPart
from paramtrans.networks.rebuilding import Shapes, shapes_of
from paramtrans.networks.stream.modules import ModuleChange
from paramtrans.networks.units.narrowed import NarrowedGroup
from paramtrans.plugins.registry import Registry

BAD = 0.2
"""A block with a larger feature error (relative reconstruction error) is warned of; docs/networks.md says what such
errors cost in accuracy."""

BlockRecord = Replaced | NarrowedGroup | ReplacedPart | LeftOut
"""What is said of a block that was translated."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Translation:
    """A network with other blocks, and what is said of them."""

    network: nn.Module
    blocks: Sequence[BlockRecord]
    settings: Sequence[Setting] = ()
    """Numbers that layers and modules hold, and that changed."""
    modules: Sequence[ModuleChange] = ()
    """Modules that became others."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Groups of units that stay as they are, as they are called, with the reason of each."""


def hand_over(
    module: nn.Module, passed: nn.Module, translation: Translation, shapes: Shapes | None, registry: Registry
) -> nn.Module:
    """The translated network with the flags of the original, without what passes counted; what is said of it, in it.

    Args:
        module: The network that was given; without the blocks that were left out, where some were.
        passed: The copy of it that passes went through.
        translation: What became of it.
        shapes: Those of the network that all began with, or None.
        registry: The plugins.
    """
    small = translation.network
    uncount(module, passed, small)
    _warn(translation.blocks)
    lean(small, registry, module).train(module.training)
    original_modules = dict(module.named_modules())
    for path, part in small.named_modules():
        if path in original_modules:
            part.training = original_modules[path].training
    setattr(small, ATTRIBUTE, (*getattr(module, ATTRIBUTE, ()), *translation.blocks))
    setattr(small, SIZES, (*getattr(module, SIZES, ()), *translation.settings))
    setattr(small, MODULES, (*getattr(module, MODULES, ()), *translation.modules))
    setattr(small, REFUSED, dict(translation.refused))
    setattr(small, SHAPES, shapes)
    return small


def untranslated_shapes(module: nn.Module) -> Shapes | None:
    """Shapes of the network that all began with; None where it was translated by one who did not say.

    Args:
        module: A network, translated or not.
    """
    return getattr(module, SHAPES, None) if hasattr(module, ATTRIBUTE) else shapes_of(module)


def _warn(replaced: Sequence[BlockRecord]) -> None:
    """Say which blocks are predicted to come out badly, and where nothing was done."""
    if not replaced:
        log.warning(
            "nothing was translated: every block keeps its width; lower ratio, depth or the budget, or what widths are "
            "rounded to (multiple_of, least)"
        )
    bad: dict[str, list[BlockRecord]] = {}
    for block in replaced:
        if block.feature_error is None or block.feature_error <= BAD:  # NaN is bad
            continue
        advice = "keep more of their units, leave them out, or take another translator"
        if isinstance(block, ReplacedPart):
            advice = "give them more steps or inputs, leave them out, or take another target"
        elif isinstance(block, LeftOut):
            advice = "leave out fewer blocks (depth), or let something take their place (to)"
        bad.setdefault(advice, []).append(block)
    for advice, blocks in bad.items():
        numbers = sorted((block.feature_error or 0.0 for block in blocks), key=lambda error: (isnan(error), error))
        errors = [f"{error:.2f}" for error in numbers]
        log.warning(
            "predicted to come out badly, at a feature error of %s (1 is as bad as a constant): %s; %s",
            " to ".join(dict.fromkeys((errors[0], errors[-1]))),
            some_of([getattr(block, "title", "") or block.path or "the network" for block in blocks], 4),
            advice,
        )
