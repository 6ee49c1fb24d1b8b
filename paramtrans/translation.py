"""Whole networks: every block that an adapter knows is translated to a smaller one, in the order of the features."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from paramtrans import hosts as stacks
from paramtrans import seeds
from paramtrans.blocks import BlockAdapter
from paramtrans.capture import Inputs, NetworkContext, entering
from paramtrans.errors import SpecMismatch
from paramtrans.network import NetworkBlock, Survey, find_blocks, survey
from paramtrans.plugins import components
from paramtrans.progress import Reporter
from paramtrans.protocols import Translator
from paramtrans.registry import Registry
from paramtrans.saving import load_translator
from paramtrans.translated import ATTRIBUTE, Replaced
from paramtrans.widths import Ratio, Widths

Sizes = Mapping[str, int]
Maker = Callable[[BlockAdapter, BlockAdapter], Translator]
"""Makes the translator for a pair of blocks."""

log = logging.getLogger(__name__)


def translate(
    module: nn.Module,
    translator: str | Path = "refit",
    *,
    ratio: float | Mapping[str, float] = 0.5,
    widths: Widths | None = None,
    blocks: str = "*",
    calibrate: Iterable[Inputs] = (),
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
    between commas. `calibrate` are unlabelled inputs, in batches that can be gone through more than once: tensors,
    dictionaries of keyword arguments, or lists whose first item is the input. With `sequential`, every block makes up
    for what those before it changed; else each is translated as if it were the only one.

    >>> smaller = translate(network, ratio=0.5, calibrate=images.split(64))  # doctest: +SKIP
    >>> smaller = translate(network, calibrate=images.split(64), then={"matching": {"lr": 1e-3}})  # doctest: +SKIP
    """
    registry, reporter = registry or components(), reporter or Reporter()
    batches: Iterable[Inputs] = list(calibrate) if isinstance(calibrate, Iterator) else calibrate
    original = copy.deepcopy(module).eval()
    looked = look(original, blocks, batches, registry)
    for path, reason in looked.refused.items():
        log.warning("%s stays as it is: %s", path or "the network", reason)
    chain = [(translator, options or {}), *(then or {}).items()]
    makers = [_maker(each, dict(own), registry) for each, own in chain]
    chosen = (widths or Ratio(ratio))(original, looked.blocks, batches)
    small = copy.deepcopy(original)
    replaced: list[Replaced] = []
    with reporter.stage(f"translating {len(looked.blocks)} blocks", len(looked.blocks)) as stage:
        for block in looked.blocks:
            sizes = chosen[block.path]
            if sizes != block.sizes:
                before = small if sequential and replaced else original
                replaced.append(_translate_block(block, sizes, makers, (original, before, small), batches, seed))
            stage.advance(note=block.path)
    small.train(module.training)
    setattr(small, ATTRIBUTE, (*getattr(module, ATTRIBUTE, ()), *replaced))
    return small


def look(network: nn.Module, pattern: str, batches: Iterable[Inputs], registry: Registry) -> Survey:
    """The blocks of a network in eval mode that can be translated; raises `SpecMismatch` where there are none."""
    found = find_blocks(network, registry, pattern)
    known = ", ".join(entry.name for entry in registry.of_kind("block_adapter"))
    if not found:
        raise SpecMismatch(
            f'no block whose path matches "{pattern}" is known to an adapter ({known}); `paramtrans inspect` lists '
            "those there are"
        )
    batch = next(iter(batches), None)
    looked = survey(network, found, batch) if batch is not None else Survey(tuple(found), {})
    if not looked.blocks:
        reasons = "; ".join(f"{path or 'the network'}: {reason}" for path, reason in looked.refused.items())
        raise SpecMismatch(f"none of the blocks can be translated: {reasons}")
    return looked


def _translate_block(
    block: NetworkBlock,
    sizes: Sizes,
    makers: Sequence[Maker],
    networks: tuple[nn.Module, nn.Module, nn.Module],
    batches: Iterable[Inputs],
    seed: int,
) -> Replaced:
    """Replace one block in the last of the networks: the original, the one before this block, the one written to."""
    original, before, small = networks
    target = block.adapter.narrowed(sizes)
    source = block.params(original)
    device = next(iter(source.values())).device
    context = NetworkContext(seed=seed, device=device)
    if next(iter(batches), None) is not None:
        kept = entering(original, block.entrance, batches)
        reached = kept if before is original else entering(before, block.entrance, batches)
        context = replace(context, original=kept, reached=reached)
    for number, make in enumerate(makers):
        try:
            params = make(block.adapter, target).translate(source, context)
        except SpecMismatch as error:
            raise SpecMismatch(f"{block.path or 'the network'}: {error}") from error
        context = replace(context, start=params, seed=seeds.derive(seed, "translator", number + 1))
    stacks.check(params, target.spec, f"what the translator wrote for {block.path}")
    if not all(tensor.isfinite().all() for tensor in params.values()):
        raise SpecMismatch(f"{block.path}: the translator wrote values that are not finite; look at the inputs")
    block.replace(small, target, params)
    options = (adapter.options.model_dump(mode="json") for adapter in (block.adapter, target))
    return Replaced(block.path, block.kind, dict(block.layers), *options)


def _maker(translator: str | Path, options: dict[str, Any], registry: Registry) -> Maker:
    """For a name, or the folder of a saved translator."""
    if isinstance(translator, Path) or "/" in translator:
        saved = load_translator(translator, registry)

        def fitting(source: BlockAdapter, target: BlockAdapter) -> Translator:
            for side, own, block in (("source", saved.source, source), ("target", saved.target, target)):
                if own.spec != block.spec:
                    raise SpecMismatch(f"the saved translator's {side} is another block than the one to be translated")
            return saved

        return fitting
    if registry.load("translator", translator).learns:
        raise SpecMismatch(
            f"translator {translator} has to be trained first; give the folder of a trained one, or use a closed form "
            "such as refit"
        )
    return lambda source, target: registry.create("translator", translator, source, target, **options)
