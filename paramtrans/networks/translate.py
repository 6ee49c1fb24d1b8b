"""Whole networks made smaller: by units of their graph, by blocks of adapters, to other architectures, by depth."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from paramtrans.errors import SpecMismatch
from paramtrans.networks.arguments import check_arguments
from paramtrans.networks.block_by_block import translate_blocks
from paramtrans.networks.blocks import factories
from paramtrans.networks.blocks.finding import find_blocks, some_of
from paramtrans.networks.depth.left_out import LeftOut, without
from paramtrans.networks.depth.shortening import parts_to_replace, shorten
from paramtrans.networks.files import ATTRIBUTE, MODULES, REFUSED, SHAPES, SIZES, Replaced
from paramtrans.networks.finishing import finish_network, finish_options
from paramtrans.networks.forward.activations import Inputs, check_repeatable, in_batches
from paramtrans.networks.forward.batches import as_taken, is_taken
from paramtrans.networks.forward.sameness import said_of_sameness
from paramtrans.networks.graph.narrow import Setting
from paramtrans.networks.graph.numbers import uncount
from paramtrans.networks.loading.architectures import lean
from paramtrans.networks.loading.wrappers import copied, unwrapped
from paramtrans.networks.parts.replacing import ReplacedPart, replace_parts
from paramtrans.networks.rebuilding import Shapes, shapes_of
from paramtrans.networks.units.chain import unit_chain, unsuited_reason
from paramtrans.networks.units.narrowed import NarrowedGroup
from paramtrans.networks.units.narrowing import narrow_network
from paramtrans.networks.units.selection import Asked
from paramtrans.networks.widths import Ratio, Widths, with_registry
from paramtrans.plugins.manager import components
from paramtrans.plugins.registry import Registry
from paramtrans.utils import memory
from paramtrans.utils.progress import Reporter
from paramtrans.utils.surroundings import pinned

BAD = 0.2
"""A block with a larger feature error (relative reconstruction error) is warned of; docs/networks.md says what such
errors cost in accuracy."""

BlockRecord = Replaced | NarrowedGroup | ReplacedPart | LeftOut
"""What is said of a block that was translated."""

log = logging.getLogger(__name__)


@pinned()
def translate(
    module: nn.Module,
    translator: str | Path = "refit",
    *,
    ratio: float | Mapping[str, float] | None = None,
    widths: Widths | None = None,
    depth: float | None = None,
    stream: float | None = None,
    rotate: bool = False,
    query_key: float | None = None,
    blocks: str = "*",
    calibrate: Iterable[Inputs] | Tensor | Mapping[str, Any] = (),
    options: Mapping[str, Any] | None = None,
    then: Mapping[str, Mapping[str, Any]] | None = None,
    to: Mapping[str, str] | None = None,
    finish: int | Mapping[str, Any] | None = None,
    sequential: bool = True,
    by: Literal["blocks", "units"] | None = None,
    seed: int = 0,
    reporter: Reporter | None = None,
    registry: Registry | None = None,
) -> nn.Module:
    """A smaller network: a copy of `module` with fewer units, or with what a translator makes of its blocks.

    What is said of each group of units or block, with its feature error (relative reconstruction error) where there
    are inputs, is kept in the result's `paramtrans_blocks`. Of 32 inputs or more, one in eight is kept aside, and
    errors are of these; `paramtrans.measure_losses` measures more on them.

    Args:
        module: The network.
        translator: The name of a translator, or the folder of a saved one. A saved translator writes blocks of one
            size, in place of all those that it was trained for.
        ratio: Each hidden width becomes this share of what it was: for all alike, or by pattern of their paths.
            Where neither this nor `widths` is given, 0.5.
        widths: A rule that chooses the hidden widths.
        depth: Share of the blocks that the network repeats which stay; the others, those that cost the outputs least,
            are left out. If nothing else is asked for (`ratio`, `widths`, `by`, `then`, a translator), widths stay.
            With `to`: share of the parts that it names which stay as they are.
        stream: Share of the width of residual streams that stays. Means and normalisations are then computed over the
            units that stay, and what reads or writes them is solved for. Hidden widths stay, unless they are asked for.
        rotate: Before `stream`, rotate residual streams into their principal axes, of which the first stay (SliceGPT,
            arXiv 2401.15024); of transformers with a normalisation before each branch. LayerNorms become RMSNorms.
        query_key: Share of the dimensions that stay in which the queries and keys of each head are compared; where the
            network's code has one number for these and for values, as many of the values. Hidden widths stay, too.
        blocks: Patterns of the paths of groups or blocks, between commas; with `depth`, of those that may go.
        calibrate: Unlabelled inputs: a tensor, a dictionary of keyword arguments, or batches of these, or of lists
            whose first item is the input. They must be the same each time that they are gone through.
        options: Of the translator. For a saved one, `target` names the family of target blocks that it writes; by
            default the first.
        then: Further translators, each with its options. They go on from what the first wrote for a block, before the
            next block has its turn.
        to: Parts of the network become blocks of another architecture: for patterns of paths the name of a block
            adapter, with its options behind a question mark (`{"layer3.*": "depthwise_separable?kernel=5"}`). Any
            module with one tensor in and one out is such a part. Its block starts from a closed form where its adapter
            has one, and is fitted to what the part computes on the inputs. `options` are then `ReplacingOptions` of
            `networks.parts.replacing`, and `ratio` is the share of each part's parameters that its block may have.
        finish: Steps on all that was translated, together, to make the network give what it gave, after everything else
            (or `FinishOptions` of `networks.finishing`: `{"steps": 300, "lr": 0.01}`).
        sequential: Every block makes up for what those before it changed; else each is translated as if it were the
            only one.
        by: What is made smaller: `units` that the network's graph shows, whatever its layers are called (with inputs),
            or `blocks` that an adapter recognises. By default units, where the translator can write them.
        seed: For whatever is drawn.
        reporter: Shows the progress.
        registry: The plugins; by default those that are installed.

    Returns:
        The smaller network, with devices, precision and training flags as they were; `module` is unchanged.

    Raises:
        SpecMismatch: nothing can be translated as asked.
        DataError: the inputs cannot be used.

    >>> smaller = translate(network, ratio=0.5, calibrate=images.split(64))  # doctest: +SKIP
    >>> smaller = translate(network, calibrate=images.split(64), then={"matching": {"lr": 1e-3}})  # doctest: +SKIP
    >>> shorter = translate(network, depth=0.75, calibrate=images.split(64))  # doctest: +SKIP
    >>> other = translate(network, to={"layer?.*": "bottleneck"}, calibrate=images.split(64))  # doctest: +SKIP
    """
    registry, reporter = registry or components(), reporter or Reporter()
    if not isinstance(module, nn.Module):
        hint = "give its module()" if hasattr(module, "module") else "load the parameters into one"
        raise SpecMismatch(f"translate takes an nn.Module, not {type(module).__name__}; {hint}")
    named_arguments = {"translator": translator, "blocks": blocks, "options": options, "then": then, "to": to}
    shares = {"stream": stream, "query_key": query_key}
    switches = {"sequential": sequential, "rotate": rotate}
    check_arguments(widths, ratio, by, shares, **named_arguments, **switches, finish=finish, seed=seed, depth=depth)
    finishing = finish_options(finish)
    module = unwrapped(module)
    original = copied(module, share=True)
    if to is None:  # a block in another's place has to see its cache
        lean(original, registry)
    batches = as_taken(original, in_batches(calibrate))
    check_repeatable(original, batches)
    if not is_taken(calibrate) and (warning := said_of_sameness(original, batches)):
        log.warning(warning)
    memory.give_back()
    if depth is not None and to is None:
        if any(not isinstance(block, LeftOut) for block in getattr(module, ATTRIBUTE, ())):
            raise SpecMismatch("depth: leave blocks out first, and translate the rest afterwards")
        shorter, gone = shorten(original, depth, blocks, batches, registry, reporter)
        small = _finished(registry, without(module, gone, registry), shorter, shorter, gone, ())
        setattr(small, SHAPES, _untranslated_shapes(module))
        asked = (ratio, widths, by, stream, query_key)
        if translator != "refit" or any(x is not None for x in asked) or then or options:
            small = translate(
                small,
                translator,
                ratio=ratio,
                widths=widths,
                stream=stream,
                rotate=rotate,
                query_key=query_key,
                calibrate=batches,
                options=options,
                then=then,
                sequential=sequential,
                by=by,
                seed=seed,
                reporter=reporter,
                registry=registry,
            )
        finish_network(finishing, original, small, batches, seed, reporter)
        return small
    if to is not None:
        if any(x is not None for x in (by, widths, *shares.values())) or then or isinstance(ratio, Mapping):
            raise SpecMismatch("to: goes with ratio (one number), depth, options, finish, calibrate and seed alone")
        if depth is not None:
            to = parts_to_replace(original, depth, to, ratio, batches, seed, registry, reporter)
        replacement = replace_parts(
            original, to, options or {}, registry, ratio=ratio, batches=batches, seed=seed, reporter=reporter
        )
        finish_network(finishing, original, replacement.network, batches, seed, reporter)
        return _finished(registry, module, original, replacement.network, replacement.parts, ())
    trained = factories.trained_translator(translator, registry, options or {})
    rule = widths or Ratio(0.5 if ratio is None else ratio)
    named = [(trained or translator, options or {}), *(then or {}).items()]
    chain = [
        factories.translator_factory(translator_or_name, dict(its_options), registry)
        for translator_or_name, its_options in named
    ]
    unsuited = unsuited_reason(original, named, rule, sequential, batches, registry)
    shares = {name: share for name, share in shares.items() if share is not None}
    if unsuited and (shares or by == "units"):
        asked_for = next(iter(shares), 'by="units"')
        raise SpecMismatch(f"{asked_for}: {unsuited}")
    if by is None and unsuited and trained is None and not find_blocks(original, registry):
        raise SpecMismatch(f"{unsuited}; and no adapter recognises a block of this {type(original).__name__}")
    if not unsuited and by != "blocks":
        hidden = None if shares and ratio is None and widths is None else with_registry(rule, registry)
        narrowed = narrow_network(
            original,
            unit_chain(named, registry),
            asked=Asked(blocks, hidden, rotate=rotate, **shares),  # type: ignore[arg-type]
            batches=batches,
            seed=seed,
            reporter=reporter,
            registry=registry,
        )
        finish_network(finishing, original, narrowed.network, batches, seed, reporter)
        setattr(narrowed.network, MODULES, (*getattr(module, MODULES, ()), *narrowed.modules))
        setattr(narrowed.network, REFUSED, dict(narrowed.refused))
        return _finished(registry, module, original, narrowed.network, narrowed.groups, narrowed.settings)
    if trained is not None:
        factories.check_unsized(trained, ratio, widths)
    small, replaced = translate_blocks(
        original,
        blocks,
        rule,
        trained,
        chain,
        also_whole=trained is None and any(not registry.load("translator", str(name)).narrows for name, _ in named),
        sequential=sequential,
        batches=batches,
        registry=registry,
        seed=seed,
        reporter=reporter,
    )
    finish_network(finishing, original, small, batches, seed, reporter)
    return _finished(registry, module, original, small, replaced, ())


def _finished(
    registry: Registry,
    module: nn.Module,
    passed: nn.Module,
    small: nn.Module,
    replaced: Iterable[BlockRecord],
    sizes: Iterable[Setting],
) -> nn.Module:
    """The small network with the flags of the original, without what passes counted, and what is to be said of it."""
    replaced = tuple(replaced)
    uncount(module, passed, small)
    _warn(replaced)
    lean(small, registry, module).train(module.training)
    original_modules = dict(module.named_modules())
    for path, part in small.named_modules():
        if path in original_modules:
            part.training = original_modules[path].training
    setattr(small, ATTRIBUTE, (*getattr(module, ATTRIBUTE, ()), *replaced))
    setattr(small, SIZES, (*getattr(module, SIZES, ()), *sizes))
    setattr(small, SHAPES, _untranslated_shapes(module))
    return small


def _untranslated_shapes(module: nn.Module) -> Shapes | None:
    """Shapes of the network that all began with; None where `module` was translated by one who did not say."""
    return getattr(module, SHAPES, None) if hasattr(module, ATTRIBUTE) else shapes_of(module)


def _warn(replaced: Sequence[BlockRecord]) -> None:
    """Say which blocks are predicted to come out badly, and where nothing was done."""
    if not replaced:
        log.warning("nothing was translated: every block keeps its width; lower ratio, depth or the budget")
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
