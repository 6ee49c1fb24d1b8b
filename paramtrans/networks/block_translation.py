"""One block of a network: translated by a chain of translators, put in its place, and measured there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from paramtrans.api import stacking as stacks
from paramtrans.api.adapter import BlockAdapter
from paramtrans.api.stacking import Params
from paramtrans.api.translator import Translator
from paramtrans.backends.vmap import Vmap
from paramtrans.errors import SpecMismatch
from paramtrans.networks.blocks.factories import TranslatorFactory
from paramtrans.networks.blocks.finding import NetworkBlock, put
from paramtrans.networks.blocks.input_cache import InputCache
from paramtrans.networks.files import Replaced
from paramtrans.networks.forward.activations import NetworkContext
from paramtrans.networks.loading.host_network import HostNetwork
from paramtrans.ops.distances import streamed_error
from paramtrans.utils import seeds


def translate_block(
    block: NetworkBlock,
    target: BlockAdapter,
    chain: Sequence[TranslatorFactory],
    networks: tuple[nn.Module, nn.Module, nn.Module],
    caches: tuple[InputCache, InputCache],
    seed: int,
) -> Replaced:
    """Translate one block, put it into the smaller network, and measure its error.

    Args:
        block: The block.
        target: The adapter of the block that takes its place.
        chain: Make the translators, the first and those that go on from it.
        networks: The original; the network whose features reach this block; the one that is written to.
        caches: Inputs of blocks to fit to, and those to measure the error on.
        seed: For whatever is drawn.

    Raises:
        SpecMismatch: a translator does not suit these blocks, or wrote values that are not finite.
    """
    original, _, small = networks
    places, source = block.places(target), block.params(original)
    context = NetworkContext(seed=seed, device=next(iter(source.values())).device)
    context = measured = _with_entering(context, caches[0], networks, block)
    if caches[1] is not caches[0]:
        measured = _with_entering(context, caches[1], networks, block)
    if isinstance(original, HostNetwork) and original.get_submodule(block.path) is original.block:
        context = replace(context, hosts=original.hosts(source), runner=original.runner(block.adapter, target))
    elif places.keys() == {""} and context.original is None:
        raise SpecMismatch(
            f"{block.path}: a block of another kind is to stand here; give a few unlabelled inputs (calibrate=, or "
            "--calibrate), so that this one can be held to what the translator takes it for"
        )
    params, fitted = _run_chain(block, target, chain, source, context, seed)
    stacks.check(params, target.spec, f"what the translator wrote for {block.path}")
    if not all(tensor.isfinite().all() for tensor in params.values()):
        raise SpecMismatch(f"{block.path}: the translator wrote values that are not finite; look at the inputs")
    put(small, places, target, params)
    feature_error = _feature_error(block.adapter, target, (source, params), measured) if measured.original else None
    held_out = None if feature_error is None else not fitted or caches[0] is not caches[1]
    options = [adapter.options.model_dump(mode="json") for adapter in (block.adapter, target)]
    return Replaced(block.path, block.kind, places, options[0], options[1], block.kind, feature_error, held_out)


def _run_chain(
    block: NetworkBlock,
    target: BlockAdapter,
    chain: Sequence[TranslatorFactory],
    source: Params,
    context: NetworkContext,
    seed: int,
) -> tuple[Params, bool]:
    """What the last translator of a chain writes for a block, and whether any of them looked at inputs."""
    fitted = False
    for number, make in enumerate(chain):
        try:
            translator = make(block.adapter, target)
            if translator.needs_probes and context.original is None:
                raise SpecMismatch(
                    "this translator looks at what blocks compute; calibrate it with a few dozen unlabelled inputs "
                    "(calibrate=, or --calibrate) or synthetic ones (draw_probes, or --probes), or take one that looks "
                    "at parameters alone: prune, select, merge"
                )
            params, fitted = _translated(translator, source, context), fitted or translator.needs_probes
        except SpecMismatch as error:
            raise SpecMismatch(f"{block.path or 'the network'}: {error}") from error
        context = replace(context, start=params, seed=seeds.derive(seed, "translator", number + 1))
    return params, fitted


def _with_entering(
    context: NetworkContext, caches: InputCache, networks: tuple[nn.Module, nn.Module, nn.Module], block: NetworkBlock
) -> NetworkContext:
    """The context with what enters a block: in the original network, and in the one whose features reach it."""
    if not caches.known:
        return context
    original = caches.entering(networks[0], block)
    reached = original if networks[1] is networks[0] else caches.entering(networks[1], block)
    return replace(context, original=original, reached=reached)


def _translated(translator: Translator, source: Params, context: NetworkContext) -> Params:
    """What a translator writes for a source block; one with weights computes in their precision, where the block is."""
    if not isinstance(translator, nn.Module):
        return translator.translate(source, context)
    params = translator.to(context.device).translate({name: tensor.float() for name, tensor in source.items()}, context)
    precision = next(iter(source.values())).dtype
    return {name: tensor.to(precision) for name, tensor in params.items()}


@torch.no_grad()
def _feature_error(
    source: BlockAdapter, target: BlockAdapter, blocks: tuple[Params, Params], context: NetworkContext
) -> float | None:
    """How far what leaves the target block is from what leaves the source block, each where it stands."""
    source_block, target_block = Vmap(source.module()), Vmap(target.module())
    pairs = (
        (target_block(blocks[1], entering.reached)[0], source_block(blocks[0], entering.original)[0])
        for entering in context.entering()
    )
    return streamed_error(pairs)
