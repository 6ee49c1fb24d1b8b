"""Whole networks made smaller: by units of their graph, by blocks of adapters, to other architectures, by depth."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from paramtrans.errors import SpecMismatch
from paramtrans.networks.block_by_block import translate_blocks
from paramtrans.networks.blocks import factories
from paramtrans.networks.blocks.finding import find_blocks
from paramtrans.networks.depth.left_out import LeftOut, without
from paramtrans.networks.depth.shortening import parts_to_replace, shorten
from paramtrans.networks.files import ATTRIBUTE
from paramtrans.networks.finishing import finish_network
from paramtrans.networks.forward.activations import Inputs, check_repeatable, in_batches
from paramtrans.networks.forward.batches import as_taken, check_has_values, is_taken
from paramtrans.networks.forward.sameness import said_of_sameness
from paramtrans.networks.loading.architectures import lean
from paramtrans.networks.loading.wrappers import copied, unwrapped
from paramtrans.networks.parts.going_on import steps_behind
from paramtrans.networks.parts.replacing import replace_parts
from paramtrans.networks.request import Request, request_of
from paramtrans.networks.translation import Translation, hand_over, untranslated_shapes
from paramtrans.networks.units.chain import unit_chain, unsuited_reason
from paramtrans.networks.units.narrowing import narrow_network
from paramtrans.networks.widths import Widths
from paramtrans.plugins.manager import components
from paramtrans.plugins.registry import Registry
from paramtrans.utils import memory
from paramtrans.utils.distributed import ALONE, process_group
from paramtrans.utils.progress import Reporter
from paramtrans.utils.surroundings import pinned

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
    distributed: bool = False,
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
            next block has its turn; with `to` those that adjust what is there, such as `matching`.
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
        distributed: Whether all processes that torchrun started call this with the same arguments, and share the
            passes over the batches of inputs where units are made smaller. Each returns the smaller network.
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
    if not isinstance(module, nn.Module):
        hint = "give its module()" if hasattr(module, "module") else "load the parameters into one"
        raise SpecMismatch(f"translate takes an nn.Module, not {type(module).__name__}; {hint}")
    request = request_of(
        translator=translator,
        ratio=ratio,
        widths=widths,
        depth=depth,
        stream=stream,
        rotate=rotate,
        query_key=query_key,
        blocks=blocks,
        options=options,
        then=then,
        to=to,
        finish=finish,
        sequential=sequential,
        by=by,
        distributed=distributed,
        seed=seed,
        reporter=reporter or Reporter(),
        registry=registry or components(),
    )
    module = unwrapped(module)
    check_has_values(module)
    shapes = untranslated_shapes(module)
    original = copied(module, share=True)
    if to is None:  # a block in another's place has to see its cache
        lean(original, request.registry)
    batches = as_taken(original, in_batches(calibrate))
    check_repeatable(original, batches)
    if not is_taken(calibrate) and (warning := said_of_sameness(original, batches)):
        log.warning(warning)
    memory.give_back()
    passed, gone = original, list[LeftOut]()
    if depth is not None and to is None:
        if any(not isinstance(block, LeftOut) for block in getattr(module, ATTRIBUTE, ())):
            raise SpecMismatch("depth: leave blocks out first, and translate the rest afterwards")
        passed, gone = shorten(original, depth, blocks, batches, request.registry, request.reporter)
        module = without(module, gone, request.registry)
        request = replace(request, blocks="*")
    if gone and request.depth_alone:
        translation = Translation(passed, ())
    elif request.to is not None:
        translation = _to_others(original, batches, request)
    else:
        translation = _made_smaller(passed, batches, request)
    finish_network(request.finish, original, translation.network, batches, seed, request.reporter)
    translation = replace(translation, blocks=(*gone, *translation.blocks))
    return hand_over(module, passed, translation, shapes, request.registry)


def _to_others(network: nn.Module, batches: Iterable[Inputs], request: Request) -> Translation:
    """Parts that become blocks of other architectures."""
    to, ratio, seed, registry = request.to or {}, request.ratio, request.seed, request.registry
    assert not isinstance(ratio, Mapping)
    then = steps_behind([*request.then.items()], registry)
    if request.depth is not None:
        to = parts_to_replace(network, request.depth, to, ratio, batches, seed, registry, request.reporter)
    replacement = replace_parts(
        network,
        to,
        request.options,
        registry,
        ratio=ratio,
        batches=batches,
        seed=seed,
        reporter=request.reporter,
        then=then,
    )
    return Translation(replacement.network, replacement.parts)


def _made_smaller(network: nn.Module, batches: Iterable[Inputs], request: Request) -> Translation:
    """Units of the network's graph, where the translators can write them; else blocks of adapters."""
    registry, processes = request.registry, process_group() if request.distributed else ALONE
    trained = factories.trained_translator(request.translator, registry, request.options)
    named = [(trained or request.translator, request.options), *request.then.items()]
    chain = [factories.translator_factory(name, dict(options), registry) for name, options in named]
    unsuited = unsuited_reason(network, named, request.rule, request.sequential, batches, registry)
    if unsuited and (request.shares or request.by == "units"):
        asked_for = next(iter(request.shares), 'by="units"')
        raise SpecMismatch(f"{asked_for}: {unsuited}")
    if not unsuited and request.by != "blocks":
        narrowed = narrow_network(
            network,
            unit_chain(named, registry),
            asked=request.of_units,
            batches=batches,
            seed=request.seed,
            reporter=request.reporter,
            registry=registry,
            processes=processes,
        )
        return Translation(narrowed.network, narrowed.groups, narrowed.settings, narrowed.modules, narrowed.refused)
    if unsuited and request.by is None and trained is None and not find_blocks(network, registry):
        raise SpecMismatch(f"{unsuited}; and no adapter recognises a block of this {type(network).__name__}")
    if processes.size > 1:
        log.warning("each process passes all inputs: they are shared where units are made smaller alone")
    if trained is not None:
        factories.check_unsized(trained, request.ratio, request.widths)
    return Translation(
        *translate_blocks(
            network,
            request.blocks,
            request.rule,
            trained,
            chain,
            also_whole=trained is None and any(not registry.load("translator", str(name)).narrows for name, _ in named),
            sequential=request.sequential,
            batches=batches,
            registry=registry,
            seed=request.seed,
            reporter=request.reporter,
        )
    )
