"""Networks made smaller by blocks that an adapter recognises, one after the other in the order of the features."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace

from torch import nn

from paramtrans.api.translator import Translator
from paramtrans.networks.block_translation import translate_block
from paramtrans.networks.blocks import remainder
from paramtrans.networks.blocks.choosing import Placed, check_room, choose_blocks
from paramtrans.networks.blocks.factories import TranslatorFactory
from paramtrans.networks.blocks.finding import NetworkBlock
from paramtrans.networks.blocks.input_cache import InputCache
from paramtrans.networks.files import Replaced
from paramtrans.networks.forward.activations import Inputs
from paramtrans.networks.forward.examples import Examples
from paramtrans.networks.widths import Chosen, Widths, checked, with_registry
from paramtrans.plugins.registry import Registry
from paramtrans.utils.counts import counted
from paramtrans.utils.progress import Reporter

log = logging.getLogger(__name__)


def translate_blocks(
    network: nn.Module,
    pattern: str,
    widths: Widths,
    trained: Translator | None,
    chain: Sequence[TranslatorFactory],
    *,
    also_whole: bool,
    sequential: bool,
    batches: Iterable[Inputs],
    registry: Registry,
    seed: int,
    reporter: Reporter,
) -> tuple[nn.Module, list[Replaced]]:
    """A copy of `network`, which is in eval mode, with blocks translated, and what is said of each.

    Args:
        network: The network; it is not changed.
        pattern: Patterns of the paths of blocks, between commas.
        widths: A rule for hidden widths; those of a trained translator are its own.
        trained: A trained translator, if the first of the chain is one.
        chain: Makes the translators of each block, which go on from each other.
        also_whole: Whether blocks that keep all of their units are translated too.
        sequential: Whether every block makes up for what those before it changed.
        batches: Calibration inputs.
        registry: The plugins.
        seed: For whatever is drawn.
        reporter: Shows the progress.

    Raises:
        SpecMismatch: there is no such block, or none can be translated.
    """
    surveyed = choose_blocks(network, pattern, batches, registry, trained.source if trained else None)
    for path, reason in surveyed.refused.items():
        log.warning("%s stays as it is: %s", path or "the network", reason)
    if pattern == "*" and trained is None:
        much = remainder.share(network, surveyed.blocks) >= remainder.MUCH
        if much or log.isEnabledFor(logging.INFO):
            log.log(logging.WARNING if much else logging.INFO, remainder.warning(network, surveyed.blocks))
    examples = Examples(batches)
    if trained is not None:
        targets = [(block, trained.target) for block in surveyed.blocks]
    else:
        sizes_of = with_registry(widths, registry)(network, surveyed.blocks, examples.fitted())
        targets = _resized(surveyed.blocks, checked(sizes_of, surveyed.blocks), also_whole)
    return _translated(network, targets, chain, examples, sequential, registry, seed, reporter)


def _resized(blocks: Iterable[NetworkBlock], sizes_of: Chosen, also_whole: bool) -> list[Placed]:
    """The blocks that get other sizes, or all with `also_whole`, each with the adapter of those."""
    sized = [(block, sizes_of[block.entrance]) for block in blocks]
    return [(block, block.adapter.with_sizes(sizes)) for block, sizes in sized if also_whole or sizes != block.sizes]


def _translated(
    network: nn.Module,
    targets: Sequence[Placed],
    chain: Sequence[TranslatorFactory],
    examples: Examples,
    sequential: bool,
    registry: Registry,
    seed: int,
    reporter: Reporter,
) -> tuple[nn.Module, list[Replaced]]:
    """A copy of the network with blocks translated one after the other, and what is said of each."""
    if (batch := next(iter(examples.batches), None)) is not None:
        check_room(network, targets, batch)
    small, caches = copy.deepcopy(network), InputCache(examples.fitted())
    aside = InputCache(examples.held_out()) if examples.enough else caches
    replaced: list[Replaced] = []
    with reporter.stage(f"translating {counted(len(targets), 'block')}", len(targets)) as stage:
        for block, target in targets:
            reached = small if sequential and replaced else network
            record = translate_block(block, target, chain, (network, reached, small), (caches, aside), seed)
            replaced.append(replace(record, target_kind=registry.name_of("block_adapter", type(target))))
            stage.advance(note=block.path)
    if any(block.held_out is False for block in replaced):
        log.warning(examples.too_few())
    return small, replaced
