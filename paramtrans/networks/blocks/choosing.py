"""Which blocks of a network are to be translated: chosen by path and adapter, held to what they compute, with room."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from paramtrans.api.adapter import BlockAdapter
from paramtrans.errors import DataError, SpecMismatch
from paramtrans.networks.blocks import factories, staying
from paramtrans.networks.blocks.elsewhere import private
from paramtrans.networks.blocks.finding import NetworkBlock, Survey, find_blocks, matches, some_paths, survey
from paramtrans.networks.forward.activations import Inputs, call, first_examples
from paramtrans.plugins.registry import Registry

Placed = tuple[NetworkBlock, BlockAdapter]
"""A block, and what is to stand in its place."""


def look(
    network: nn.Module,
    pattern: str,
    batches: Iterable[Inputs],
    registry: Registry,
    own: BlockAdapter | None = None,
) -> Survey:
    """The blocks of a network in eval mode that can be translated; raises `SpecMismatch` where there are none.

    With `own`, the source block of a trained translator, those alone that it fits.
    """
    unfit: dict[str, str] = {}
    every = find_blocks(network, registry, own=own, unlike_paths=unfit)
    unfit = {path: reason for path, reason in unfit.items() if path not in {block.path for block in every}}
    if not every and own is not None:
        raise SpecMismatch(
            f"the translator was trained for blocks of another kind ({factories.named(own)}) than those of this "
            f"{type(network).__name__}; paramtrans inspect lists them"
        )
    if not every:
        known = ", ".join(entry.name for entry in registry.of_kind("block_adapter"))
        why = "; ".join([*unfit.values()][:3]) or staying.causes(network, [], registry)
        raise SpecMismatch(
            f"no adapter ({known}) knows a block of this {type(network).__name__}{f' ({why})' if why else ''}; "
            "docs/networks.md says what is recognised, docs/plugins.md how to add to it; its graph may "
            'show units, with calibration inputs (by="units")'
        )
    found = [block for block in every if matches(block.path, pattern)]
    if not found:
        raise SpecMismatch(f'no block has a path that matches "{pattern}"; there are {some_paths(every)}')
    fit = [block for block in found if own is None or block.adapter is own]
    batch = next(iter(batches), None)
    looked = survey(network, fit, batch) if batch is not None and fit else Survey(tuple(fit), {})
    looked = private(network, looked, batch) if batch is not None else looked
    looked = Survey(looked.blocks, {**{path: why for path, why in unfit.items() if own is None}, **looked.refused})
    if own is not None:
        others = {block.path: factories.unfit("source", own, block.adapter) for block in found if block not in fit}
        looked = Survey(looked.blocks, {**others, **looked.refused})
    if not looked.blocks:
        reasons = "; ".join(f"{path or 'the network'}: {reason}" for path, reason in looked.refused.items())
        raise SpecMismatch(f"none of the blocks can be translated: {reasons}")
    return looked


@torch.no_grad()
def check_room(network: nn.Module, targets: Sequence[Placed], batch: Inputs) -> None:
    """Raise `SpecMismatch` where the network's own code has no room for smaller blocks, before any is translated."""
    trial = copy.deepcopy(network)
    for block, target in targets:
        block.replace(trial, target, None)
    try:
        call(trial, first_examples(batch, 1))
    except DataError as error:
        if len(targets) == 1:
            reason = str(error.__cause__).partition("\n")[0]
            raise SpecMismatch(
                f"{targets[0][0].path or 'the network'}: the code around it takes no other number of hidden units "
                f"({reason}); leave it out (blocks=)"
            ) from error
        for one in targets:
            check_room(network, [one], batch)
        raise
