"""Whole networks: every block that an adapter knows is translated to a smaller one, in the order of the features."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from paramtrans.api import stacking as stacks
from paramtrans.api.adapter import BlockAdapter
from paramtrans.api.stacking import Params
from paramtrans.api.translator import Translator
from paramtrans.backends.vmap import Vmap
from paramtrans.errors import SpecMismatch
from paramtrans.networks import factories
from paramtrans.networks.activations import Inputs, NetworkContext, check_repeatable, in_batches
from paramtrans.networks.blocks import NetworkBlock, find_blocks, put
from paramtrans.networks.examples import Examples
from paramtrans.networks.factories import Maker
from paramtrans.networks.files import ATTRIBUTE, SIZES, Replaced
from paramtrans.networks.graph.narrow import Setting
from paramtrans.networks.host_network import HostNetwork
from paramtrans.networks.input_cache import Entrances
from paramtrans.networks.looking import check_room, look
from paramtrans.networks.narrowing import NarrowedGroup, narrow_network, suits
from paramtrans.networks.widths import Budget, FlopBudget, Ratio, Widths, with_registry
from paramtrans.ops.distances import streamed_error
from paramtrans.plugins.manager import components
from paramtrans.plugins.registry import Registry
from paramtrans.utils import seeds
from paramtrans.utils.progress import Reporter
from paramtrans.utils.surroundings import pinned

BAD = 0.2
"""A block with a larger feature error (relative reconstruction error) is warned of; docs/networks.md says what such
errors cost in accuracy."""

log = logging.getLogger(__name__)


@pinned()
def translate(
    module: nn.Module,
    translator: str | Path = "refit",
    *,
    ratio: float | Mapping[str, float] | None = None,
    widths: Widths | None = None,
    blocks: str = "*",
    calibrate: Iterable[Inputs] | Tensor | Mapping[str, Any] = (),
    options: Mapping[str, Any] | None = None,
    then: Mapping[str, Mapping[str, Any]] | None = None,
    sequential: bool = True,
    by: Literal["blocks", "units"] | None = None,
    seed: int = 0,
    reporter: Reporter | None = None,
    registry: Registry | None = None,
) -> nn.Module:
    """A smaller network: a copy of `module` in which blocks are replaced by what a translator makes of them.

    `translator` names one, with its `options`, or is the folder of a saved one; those in `then`, each with its options,
    go on from what it wrote for a block before the next block has its turn. Each hidden width becomes `ratio` of what
    it was (0.5 by default), all blocks alike or by pattern of their paths, or is chosen by `widths`; a saved translator
    writes blocks of one size, in place of all those that it was trained for, and of several families the first, or the
    one whose name is given as `target` in `options`. `blocks` are patterns of paths, between
    commas. `calibrate` are unlabelled inputs: a tensor, a dictionary of keyword arguments, or batches of these,
    or of lists whose first item is the input, the same each time they are gone through. With `sequential`, every block
    makes up for what those before it changed; else each is translated as if it were the only one. `by` says what is
    made smaller: `blocks` that an adapter recognises, or `units` that the network's graph shows, whatever its layers
    are called (with inputs, for `refit`, `prune` and `select`); by default units where no block is recognised. What is
    said of each block, with its feature error (relative reconstruction error) where there are inputs, is kept in the
    result's `paramtrans_blocks`. Of 32 inputs or more, one in eight is kept aside, and errors are of these;
    `paramtrans.networks.measure_losses` measures more on them.

    Raises `SpecMismatch` where nothing can be translated as asked, `DataError` where the inputs cannot be used.

    >>> smaller = translate(network, ratio=0.5, calibrate=images.split(64))  # doctest: +SKIP
    >>> smaller = translate(network, calibrate=images.split(64), then={"matching": {"lr": 1e-3}})  # doctest: +SKIP
    """
    registry, reporter = registry or components(), reporter or Reporter()
    if not isinstance(module, nn.Module):
        raise SpecMismatch(f"translate takes an nn.Module, not {type(module).__name__}; load the parameters into one")
    batches = in_batches(calibrate)
    examples = Examples(batches)
    original = copy.deepcopy(module).eval()
    check_repeatable(original, batches)
    trained = factories.trained_translator(translator, registry, options or {})
    rule = widths or Ratio(0.5 if ratio is None else ratio)
    suited = _takes_units(original, translator, then, rule, sequential, batches, registry)
    if by == "units" and not suited:
        raise SpecMismatch(
            'by="units" takes calibration inputs, a translator that chooses units (refit, prune, select) alone, and a '
            "ratio or a budget"
        )
    if suited and (by == "units" or (by is None and not find_blocks(original, registry))):
        narrowed = narrow_network(
            original,
            str(translator),
            options or {},
            registry,
            widths=rule,
            blocks=blocks,
            batches=batches,
            seed=seed,
            reporter=reporter,
        )
        return _finished(module, narrowed.network, narrowed.groups, narrowed.settings)
    looked = look(original, blocks, batches, registry, trained.source if trained else None)
    for path, reason in looked.refused.items():
        log.warning("%s stays as it is: %s", path or "the network", reason)
    named = [(trained or translator, options or {}), *(then or {}).items()]
    chain = [factories.maker(each, dict(own), registry) for each, own in named]
    if trained is not None:
        factories.check_unsized(trained, ratio, widths)
        targets = [(block, trained.target) for block in looked.blocks]
    else:
        chosen = with_registry(rule, registry)(original, looked.blocks, examples.fitted())
        sized = [(block, chosen[block.entrance]) for block in looked.blocks]
        targets = [(block, block.adapter.with_sizes(sizes)) for block, sizes in sized if sizes != block.sizes]
    if (batch := next(iter(batches), None)) is not None:
        check_room(original, targets, batch)
    small, entrances = copy.deepcopy(original), Entrances(examples.fitted())
    aside = Entrances(examples.held_out()) if examples.enough else entrances
    replaced: list[Replaced] = []
    count = f"{len(targets)} block{'' if len(targets) == 1 else 's'}"
    with reporter.stage(f"translating {count}", len(targets)) as stage:
        for block, target in targets:
            before = small if sequential and replaced else original
            made = _translate_block(block, target, chain, (original, before, small), (entrances, aside), seed)
            replaced.append(replace(made, target_kind=registry.name_of("block_adapter", type(target))))
            stage.advance(note=block.path)
    if any(block.held_out is False for block in replaced):
        log.warning(examples.too_few())
    return _finished(module, small, replaced, ())


def _takes_units(
    module: nn.Module,
    translator: str | Path,
    then: Mapping[str, Mapping[str, Any]] | None,
    rule: Widths,
    sequential: bool,
    batches: Iterable[Inputs],
    registry: Registry,
) -> bool:
    """Whether a network can be translated by the units that its graph shows: there are inputs to capture it with, and
    translators and rule take any units."""
    named = [str(translator), *(then or {})]
    known = {entry.name for entry in registry.of_kind("translator")}
    suited = len(named) == 1 and named[0] in known and suits(named, registry) and sequential
    inputs = next(iter(batches), None) is not None
    return suited and inputs and isinstance(rule, Ratio | Budget | FlopBudget) and not isinstance(module, HostNetwork)


def _finished(
    module: nn.Module, small: nn.Module, replaced: Iterable[Replaced | NarrowedGroup], sizes: Iterable[Setting]
) -> nn.Module:
    """The small network with the flags of the original, and what is to be said of it."""
    replaced = tuple(replaced)
    _warn(replaced)
    small.train(module.training)
    before = dict(module.named_modules())
    for path, one in small.named_modules():
        if path in before:
            one.training = before[path].training
    setattr(small, ATTRIBUTE, (*getattr(module, ATTRIBUTE, ()), *replaced))
    setattr(small, SIZES, (*getattr(module, SIZES, ()), *sizes))
    return small


def _translate_block(
    block: NetworkBlock,
    target: BlockAdapter,
    chain: Sequence[Maker],
    networks: tuple[nn.Module, nn.Module, nn.Module],
    entrances: tuple[Entrances, Entrances],
    seed: int,
) -> Replaced:
    """Replace one block in the last of the networks: the original, the one before this block, the one written to.

    `entrances` are of inputs to fit to, and of those to measure the error on.
    """
    original, _, small = networks
    places, source = block.places(target), block.params(original)
    context = NetworkContext(seed=seed, device=next(iter(source.values())).device)
    context = judged = _with_entering(context, entrances[0], networks, block)
    if entrances[1] is not entrances[0]:
        judged = _with_entering(context, entrances[1], networks, block)
    if isinstance(original, HostNetwork) and original.get_submodule(block.path) is original.block:
        context = replace(context, hosts=original.hosts(source), runner=original.runner(block.adapter, target))
    elif places.keys() == {""} and context.original is None:
        raise SpecMismatch(
            f"{block.path}: a block of another kind is to stand here; give a few unlabelled inputs (calibrate=, or "
            "--calibrate), so that this one can be held to what the translator takes it for"
        )
    fitted = False
    for number, make in enumerate(chain):
        try:
            maker = make(block.adapter, target)
            if maker.needs_probes and context.original is None:
                raise SpecMismatch(
                    "this translator looks at what blocks compute; calibrate it with a few dozen unlabelled inputs "
                    "(calibrate=, or --calibrate) or made-up ones (draw_probes, or --probes), or take one that looks "
                    "at parameters alone: prune, select, merge"
                )
            params, fitted = _translated(maker, source, context), fitted or maker.needs_probes
        except SpecMismatch as error:
            raise SpecMismatch(f"{block.path or 'the network'}: {error}") from error
        context = replace(context, start=params, seed=seeds.derive(seed, "translator", number + 1))
    stacks.check(params, target.spec, f"what the translator wrote for {block.path}")
    if not all(tensor.isfinite().all() for tensor in params.values()):
        raise SpecMismatch(f"{block.path}: the translator wrote values that are not finite; look at the inputs")
    put(small, places, target, params)
    lost = _feature_error(block.adapter, target, (source, params), judged) if judged.original else None
    held_out = None if lost is None else not fitted or entrances[0] is not entrances[1]
    options = [adapter.options.model_dump(mode="json") for adapter in (block.adapter, target)]
    return Replaced(block.path, block.kind, places, options[0], options[1], block.kind, lost, held_out)


def _with_entering(
    context: NetworkContext, entrances: Entrances, networks: tuple[nn.Module, nn.Module, nn.Module], block: NetworkBlock
) -> NetworkContext:
    """The same with what enters a block: in the original network, and in the one before this block."""
    if not entrances.known:
        return context
    original = entrances.entering(networks[0], block)
    reached = original if networks[1] is networks[0] else entrances.entering(networks[1], block)
    return replace(context, original=original, reached=reached)


def _translated(maker: Translator, source: Params, context: NetworkContext) -> Params:
    """What a translator writes for a source block; one with weights computes in their precision, where the block is."""
    if not isinstance(maker, nn.Module):
        return maker.translate(source, context)
    params = maker.to(context.device).translate({name: tensor.float() for name, tensor in source.items()}, context)
    precision = next(iter(source.values())).dtype
    return {name: tensor.to(precision) for name, tensor in params.items()}


def _warn(replaced: Iterable[Replaced | NarrowedGroup]) -> None:
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
