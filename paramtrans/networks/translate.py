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
from paramtrans.networks.blocks import factories, staying
from paramtrans.networks.blocks.choosing import check_room, look
from paramtrans.networks.blocks.factories import Maker
from paramtrans.networks.blocks.finding import NetworkBlock, find_blocks, put
from paramtrans.networks.blocks.input_cache import Entrances
from paramtrans.networks.files import ATTRIBUTE, SIZES, Replaced
from paramtrans.networks.forward.activations import Inputs, NetworkContext, check_repeatable, in_batches
from paramtrans.networks.forward.as_taken import as_taken
from paramtrans.networks.forward.examples import Examples
from paramtrans.networks.graph.narrow import Setting
from paramtrans.networks.loading.host_network import HostNetwork
from paramtrans.networks.loading.wrappers import copied, unwrapped
from paramtrans.networks.parts.replacing import ReplacedPart, replace_parts
from paramtrans.networks.units.chain import Named, unfit, unit_chain
from paramtrans.networks.units.narrowing import NarrowedGroup, narrow_network
from paramtrans.networks.units.widths import GroupRule
from paramtrans.networks.widths import Ratio, Widths, checked, with_registry
from paramtrans.ops.distances import streamed_error
from paramtrans.plugins.manager import components
from paramtrans.plugins.registry import Registry
from paramtrans.utils import seeds
from paramtrans.utils.progress import Reporter
from paramtrans.utils.surroundings import pinned

BAD = 0.2
"""A block with a larger feature error (relative reconstruction error) is warned of; docs/networks.md says what such
errors cost in accuracy."""

Made = Replaced | NarrowedGroup | ReplacedPart
"""What is said of a block that was translated."""

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
    to: Mapping[str, str] | None = None,
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
    are called (with inputs); by default units where no block is recognised. What is said of each block, with its
    feature error (relative reconstruction error) where there are inputs, is kept in the result's `paramtrans_blocks`.
    Of 32 inputs or more, one in eight is kept aside, and errors are of these; `paramtrans.networks.measure_losses`
    measures more on them.

    With `to`, parts of the network become blocks of another architecture: for patterns of paths the name of a block
    adapter, with its options behind a question mark (`{"layer3.*": "depthwise_separable?kernel=5"}`). Any module with
    one tensor in and one out is such a part. Its block starts from a closed form where its adapter has one, and is
    fitted to what the part computes on the inputs; `options` are then `ReplacingOptions` of `networks.parts.replacing`,
    and `ratio` the share of each part's parameters that its block may have.

    Raises `SpecMismatch` where nothing can be translated as asked, `DataError` where the inputs cannot be used.

    >>> smaller = translate(network, ratio=0.5, calibrate=images.split(64))  # doctest: +SKIP
    >>> smaller = translate(network, calibrate=images.split(64), then={"matching": {"lr": 1e-3}})  # doctest: +SKIP
    >>> other = translate(network, to={"layer?.*": "bottleneck"}, calibrate=images.split(64))  # doctest: +SKIP
    """
    registry, reporter = registry or components(), reporter or Reporter()
    if not isinstance(module, nn.Module):
        raise SpecMismatch(f"translate takes an nn.Module, not {type(module).__name__}; load the parameters into one")
    module = unwrapped(module)
    original = copied(module)
    batches = as_taken(original, in_batches(calibrate))
    examples = Examples(batches)
    check_repeatable(original, batches)
    if to is not None:
        if by is not None or widths is not None or then or isinstance(ratio, Mapping):
            raise SpecMismatch("to: goes with ratio (one number), options, calibrate and seed alone")
        replaced_parts = replace_parts(
            original, to, options or {}, registry, ratio=ratio, batches=batches, seed=seed, reporter=reporter
        )
        return _finished(module, replaced_parts.network, replaced_parts.parts, ())
    trained = factories.trained_translator(translator, registry, options or {})
    rule = widths or Ratio(0.5 if ratio is None else ratio)
    named = [(trained or translator, options or {}), *(then or {}).items()]
    unsuited = _unsuited(original, named, rule, sequential, batches, registry)
    if by == "units" and unsuited:
        raise SpecMismatch(f'by="units": {unsuited}')
    if not unsuited and (by == "units" or (by is None and not find_blocks(original, registry))):
        narrowed = narrow_network(
            original,
            unit_chain(named, registry),
            widths=with_registry(rule, registry),  # type: ignore[arg-type]
            blocks=blocks,
            batches=batches,
            seed=seed,
            reporter=reporter,
        )
        return _finished(module, narrowed.network, narrowed.groups, narrowed.settings)
    looked = look(original, blocks, batches, registry, trained.source if trained else None)
    for path, reason in looked.refused.items():
        log.warning("%s stays as it is: %s", path or "the network", reason)
    if blocks == "*" and trained is None and staying.share(original, looked.blocks) >= staying.MUCH:
        log.warning(staying.told(original, looked.blocks, registry))
    chain = [factories.maker(each, dict(own), registry) for each, own in named]
    if trained is not None:
        factories.check_unsized(trained, ratio, widths)
        targets = [(block, trained.target) for block in looked.blocks]
    else:
        chosen = checked(with_registry(rule, registry)(original, looked.blocks, examples.fitted()), looked.blocks)
        sized = [(block, chosen[block.entrance]) for block in looked.blocks]
        also_whole = any(not registry.load("translator", str(name)).narrows for name, _ in named)
        sized = [(block, sizes) for block, sizes in sized if also_whole or sizes != block.sizes]
        targets = [(block, block.adapter.with_sizes(sizes)) for block, sizes in sized]
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


def _unsuited(
    module: nn.Module, named: Named, rule: Widths, sequential: bool, batches: Iterable[Inputs], registry: Registry
) -> str | None:
    """Why a network cannot be translated by the units that its graph shows; None where it can."""
    if isinstance(module, HostNetwork):
        return "hosts of a task are translated by blocks"
    if next(iter(batches), None) is None:
        return "give calibration inputs, which the network's graph is captured with"
    if not sequential:
        return "every group makes up for those before it (leave out sequential=False, --independent)"
    if not isinstance(rule, GroupRule):
        return f"{type(rule).__name__} is a rule for blocks of adapters (it has no of_groups)"
    return unfit(named, registry)


def _finished(
    module: nn.Module,
    small: nn.Module,
    replaced: Iterable[Replaced | NarrowedGroup | ReplacedPart],
    sizes: Iterable[Setting],
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


def _warn(replaced: Iterable[Made]) -> None:
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
