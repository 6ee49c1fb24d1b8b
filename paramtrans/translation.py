"""Whole networks: every block that an adapter knows is translated to a smaller one, in the order of the features."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from paramtrans import hosts as stacks
from paramtrans import seeds
from paramtrans.blocks import BlockAdapter
from paramtrans.capture import Inputs, NetworkContext, call, first_examples, in_batches
from paramtrans.distances import streamed_error
from paramtrans.entrances import Entrances
from paramtrans.errors import DataError, SpecMismatch
from paramtrans.hosts import Params
from paramtrans.network import NetworkBlock, Survey, find_blocks, matches, some_paths, survey
from paramtrans.plugins import components
from paramtrans.progress import Reporter
from paramtrans.protocols import Translator
from paramtrans.registry import Registry
from paramtrans.saving import load_translator
from paramtrans.stacked import Vmap
from paramtrans.translated import ATTRIBUTE, Replaced
from paramtrans.widths import Chosen, Ratio, Widths

Sizes = Mapping[str, int]
Maker = Callable[[BlockAdapter, BlockAdapter], Translator]
"""Makes the translator for a pair of blocks."""

BAD = 0.2
"""A block with a larger feature error is warned of; docs/networks.md says what such errors cost in accuracy."""

log = logging.getLogger(__name__)


def translate(
    module: nn.Module,
    translator: str | Path = "refit",
    *,
    ratio: float | Mapping[str, float] = 0.5,
    widths: Widths | None = None,
    blocks: str = "*",
    calibrate: Iterable[Inputs] | Tensor | Mapping[str, Any] = (),
    options: Mapping[str, Any] | None = None,
    then: Mapping[str, Mapping[str, Any]] | None = None,
    sequential: bool = True,
    seed: int = 0,
    reporter: Reporter | None = None,
    registry: Registry | None = None,
) -> nn.Module:
    """A smaller network: a copy of `module` in which blocks are replaced by what a translator makes of them.

    `translator` names one, with its `options`, or is the folder of a saved one; those in `then`, each with its options,
    go on from what it wrote for a block before the next block has its turn. Each hidden width becomes `ratio` of what
    it was, all blocks alike or by pattern of their paths, or is chosen by `widths`. `blocks` are patterns of paths,
    between commas. `calibrate` are unlabelled inputs: a tensor, a dictionary of keyword arguments, or batches of these,
    or of lists whose first item is the input, the same each time they are gone through. With `sequential`, every block
    makes up for what those before it changed; else each is translated as if it were the only one. What is said of each
    block, with a feature error where there are inputs, is kept in `paramtrans_blocks` of the result.

    Raises `SpecMismatch` where nothing can be translated as asked, `DataError` where the inputs cannot be used.

    >>> smaller = translate(network, ratio=0.5, calibrate=images.split(64))  # doctest: +SKIP
    >>> smaller = translate(network, calibrate=images.split(64), then={"matching": {"lr": 1e-3}})  # doctest: +SKIP
    """
    registry, reporter = registry or components(), reporter or Reporter()
    if not isinstance(module, nn.Module):
        raise SpecMismatch(f"translate takes an nn.Module, not {type(module).__name__}; load the parameters into one")
    batches = in_batches(calibrate)
    original = copy.deepcopy(module).eval()
    looked = look(original, blocks, batches, registry)
    for path, reason in looked.refused.items():
        log.warning("%s stays as it is: %s", path or "the network", reason)
    chain = [(translator, options or {}), *(then or {}).items()]
    makers = [_maker(each, dict(own), registry) for each, own in chain]
    chosen = (widths or Ratio(ratio))(original, looked.blocks, batches)
    if (batch := next(iter(batches), None)) is not None:
        _check_room(
            original, [block for block in looked.blocks if chosen[block.entrance] != block.sizes], chosen, batch
        )
    small, entrances = copy.deepcopy(original), Entrances(batches)
    replaced: list[Replaced] = []
    with reporter.stage(f"translating {len(looked.blocks)} blocks", len(looked.blocks)) as stage:
        for block in looked.blocks:
            sizes = chosen[block.entrance]
            if sizes != block.sizes:
                before = small if sequential and replaced else original
                replaced.append(_translate_block(block, sizes, makers, (original, before, small), entrances, seed))
            stage.advance(note=block.path)
    _warn(replaced)
    small.train(module.training)
    setattr(small, ATTRIBUTE, (*getattr(module, ATTRIBUTE, ()), *replaced))
    return small


def look(network: nn.Module, pattern: str, batches: Iterable[Inputs], registry: Registry) -> Survey:
    """The blocks of a network in eval mode that can be translated; raises `SpecMismatch` where there are none."""
    every = find_blocks(network, registry)
    if not every:
        known = ", ".join(entry.name for entry in registry.of_kind("block_adapter"))
        raise SpecMismatch(
            f"no adapter ({known}) knows a block of this {type(network).__name__}; docs/networks.md says what is "
            "recognised, docs/plugins.md how to add to it"
        )
    found = [block for block in every if matches(block.path, pattern)]
    if not found:
        raise SpecMismatch(f'no block has a path that matches "{pattern}"; there are {some_paths(every)}')
    batch = next(iter(batches), None)
    looked = survey(network, found, batch) if batch is not None else Survey(tuple(found), {})
    if not looked.blocks:
        reasons = "; ".join(f"{path or 'the network'}: {reason}" for path, reason in looked.refused.items())
        raise SpecMismatch(f"none of the blocks can be translated: {reasons}")
    return looked


@torch.no_grad()
def _check_room(network: nn.Module, blocks: Sequence[NetworkBlock], chosen: Chosen, batch: Inputs) -> None:
    """Raise `SpecMismatch` where the network's own code has no room for smaller blocks, before any is translated."""
    trial = copy.deepcopy(network)
    for block in blocks:
        block.replace(trial, block.adapter.narrowed(chosen[block.entrance]), None)
    try:
        call(trial, first_examples(batch, 1))
    except DataError as error:
        if len(blocks) == 1:
            reason = str(error.__cause__).partition("\n")[0]
            raise SpecMismatch(
                f"{blocks[0].path or 'the network'}: the code around it takes no other number of hidden units "
                f"({reason}); leave it out (blocks=)"
            ) from error
        for block in blocks:
            _check_room(network, [block], chosen, batch)
        raise


def _translate_block(
    block: NetworkBlock,
    sizes: Sizes,
    makers: Sequence[Maker],
    networks: tuple[nn.Module, nn.Module, nn.Module],
    entrances: Entrances,
    seed: int,
) -> Replaced:
    """Replace one block in the last of the networks: the original, the one before this block, the one written to."""
    original, before, small = networks
    target = block.adapter.narrowed(sizes)
    source = block.params(original)
    device = next(iter(source.values())).device
    context = NetworkContext(seed=seed, device=device)
    if entrances.known:
        kept = entrances.entering(original, block)
        reached = kept if before is original else entrances.entering(before, block)
        context = replace(context, original=kept, reached=reached)
    for number, make in enumerate(makers):
        try:
            maker = make(block.adapter, target)
            if maker.needs_probes and context.original is None:
                raise SpecMismatch(
                    "this translator looks at what blocks compute; calibrate it with a few dozen unlabelled inputs "
                    "(calibrate=, or --calibrate) or made-up ones (draw_probes, or --probes), or take one that looks "
                    "at parameters alone: prune, select, merge"
                )
            params = maker.translate(source, context)
        except SpecMismatch as error:
            raise SpecMismatch(f"{block.path or 'the network'}: {error}") from error
        context = replace(context, start=params, seed=seeds.derive(seed, "translator", number + 1))
    stacks.check(params, target.spec, f"what the translator wrote for {block.path}")
    if not all(tensor.isfinite().all() for tensor in params.values()):
        raise SpecMismatch(f"{block.path}: the translator wrote values that are not finite; look at the inputs")
    block.replace(small, target, params)
    lost = _feature_error(block.adapter, target, (source, params), context) if context.original else None
    options = [adapter.options.model_dump(mode="json") for adapter in (block.adapter, target)]
    return Replaced(block.path, block.kind, dict(block.layers), options[0], options[1], lost)


def _warn(replaced: list[Replaced]) -> None:
    """Say which blocks are predicted to come out badly."""
    for block in replaced:
        if block.feature_error is not None and not block.feature_error <= BAD:
            log.warning(
                "%s is predicted to come out badly: feature error %.2f (1 is as bad as a constant); keep more of its "
                "units, leave it out, or take another translator",
                block.path or "the network",
                block.feature_error,
            )


@torch.no_grad()
def _feature_error(
    source: BlockAdapter, target: BlockAdapter, blocks: tuple[Params, Params], context: NetworkContext
) -> float:
    """How far what leaves the target block is from what leaves the source block, each where it stands."""
    before, after = Vmap(source.module()), Vmap(target.module())
    pairs = ((after(blocks[1], one.reached), before(blocks[0], one.original)) for one in context.entering())
    return streamed_error(pairs)


def _maker(translator: str | Path, options: dict[str, Any], registry: Registry) -> Maker:
    """For a name, or the folder of a saved translator."""
    pretrained = {entry.name for entry in registry.of_kind("pretrained_translator")}
    if isinstance(translator, Path) or "/" in translator or "\\" in translator or translator in pretrained:
        if options:
            raise SpecMismatch(f"options: a trained translator has its own ({', '.join(options)}); leave them out")
        saved = load_translator(translator, registry)

        def fitting(source: BlockAdapter, target: BlockAdapter) -> Translator:
            for side, own, block in (("source", saved.source, source), ("target", saved.target, target)):
                if own.spec != block.spec:
                    raise SpecMismatch(
                        f"{translator} was trained for another {side} block ({_named(own)}) than this one "
                        f"({_named(block)}); take one trained on such blocks, or a closed form such as refit"
                    )
            return saved

        return fitting
    if registry.load("translator", translator).learns:
        raise SpecMismatch(
            f"translator {translator} has to be trained first; give the folder of a trained one, or use a closed form "
            "such as refit"
        )
    return lambda source, target: registry.create("translator", translator, source, target, **options)


def _named(adapter: BlockAdapter) -> str:
    """A block's class and sizes."""
    sizes = ", ".join(f"{group.size} {group.name}" for group in adapter.spec.symmetries)
    return f"{type(adapter).__name__}, {adapter.options.channels} channels{', ' if sizes else ''}{sizes}"
