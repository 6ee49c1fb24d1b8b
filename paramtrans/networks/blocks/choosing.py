"""Which blocks of a network are to be translated: chosen by path and adapter, held to what they compute, with room."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from paramtrans.api.adapter import BlockAdapter
from paramtrans.errors import DataError, SpecMismatch
from paramtrans.networks.blocks import factories
from paramtrans.networks.blocks.finding import NetworkBlock, Survey, find_blocks, matches, some_paths, survey
from paramtrans.networks.blocks.other_readers import private
from paramtrans.networks.forward.activations import Inputs, call, first_examples
from paramtrans.plugins.registry import Registry

Placed = tuple[NetworkBlock, BlockAdapter]
"""A block, and the adapter of the block that takes its place."""


def choose_blocks(
    network: nn.Module,
    pattern: str,
    batches: Iterable[Inputs],
    registry: Registry,
    source: BlockAdapter | None = None,
) -> Survey:
    """The blocks of a network that can be translated, in the order in which features reach them.

    Args:
        network: In eval mode.
        pattern: Patterns of paths, between commas.
        batches: Calibration inputs. With them, every block is compared with what its adapter computes.
        registry: The plugins that adapters come from.
        source: The source block of a trained translator: only blocks that it fits are chosen.

    Raises:
        SpecMismatch: there is no such block.
    """
    unlike: dict[str, str] = {}
    blocks = find_blocks(network, registry, source=source, unlike_paths=unlike)
    unlike = {path: reason for path, reason in unlike.items() if path not in {block.path for block in blocks}}
    if not blocks and source is not None:
        raise SpecMismatch(
            f"the translator was trained for blocks of another kind ({factories.kind_and_sizes(source)}) than those of "
            f"this {type(network).__name__}; paramtrans inspect --by blocks lists them"
        )
    if not blocks:
        why = "; ".join([*unlike.values()][:3])
        raise SpecMismatch(
            f"no adapter recognises a block of this {type(network).__name__}{f' ({why})' if why else ''}; "
            'by="units" (--by units) goes by the network\'s graph, with calibration inputs; docs/plugins.md says '
            "how an adapter recognises blocks"
        )
    matching = [block for block in blocks if matches(block.path, pattern)]
    if not matching:
        raise SpecMismatch(f'no block has a path that matches "{pattern}"; there are {some_paths(blocks)}')
    fitting = [block for block in matching if source is None or block.adapter is source]
    batch = next(iter(batches), None)
    surveyed = held_to_adapters(network, fitting, batch)
    surveyed = Survey(surveyed.blocks, {**({} if source is not None else unlike), **surveyed.refused})
    if source is not None:
        unfitting = {
            block.path: factories.unfit_reason("source", source, block.adapter)
            for block in matching
            if block not in fitting
        }
        surveyed = Survey(surveyed.blocks, {**unfitting, **surveyed.refused})
    if not surveyed.blocks:
        reasons = "; ".join(f"{path or 'the network'}: {reason}" for path, reason in surveyed.refused.items())
        elsewhere = "" if source is not None else '; by="units" (--by units) goes by the network\'s graph instead'
        raise SpecMismatch(f"none of the blocks can be translated: {reasons}{elsewhere}")
    return surveyed


def held_to_adapters(network: nn.Module, blocks: Sequence[NetworkBlock], batch: Inputs | None) -> Survey:
    """Blocks that compute what their adapters say, and whose hidden features nothing else reads; the others, with why.

    Args:
        network: In eval mode.
        blocks: Of it, as they were recognised.
        batch: Inputs; without any, blocks are taken as they are.
    """
    if batch is None or not blocks:
        return Survey(tuple(blocks), {})
    return private(network, survey(network, list(blocks), batch), batch)


@torch.no_grad()
def check_room(network: nn.Module, targets: Sequence[Placed], batch: Inputs) -> None:
    """Check that the code of a network takes smaller blocks, before any block is translated.

    Args:
        network: The network.
        targets: Blocks, each with the adapter of the block that takes its place.
        batch: Calibration inputs; the network is run on one.

    Raises:
        SpecMismatch: the code around a block takes no other number of hidden units.
    """
    smaller = copy.deepcopy(network)
    for block, target in targets:
        block.replace(smaller, target, None)
    try:
        call(smaller, first_examples(batch, 1))
    except DataError as error:
        if len(targets) == 1:
            reason = str(error.__cause__).partition("\n")[0]
            raise SpecMismatch(
                f"{targets[0][0].path or 'the network'}: the code around it takes no other number of hidden units "
                f"({reason}); leave it out (blocks=)"
            ) from error
        for target_alone in targets:
            check_room(network, [target_alone], batch)
        raise
