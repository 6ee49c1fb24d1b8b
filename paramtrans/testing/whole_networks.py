"""Checks of block adapters by what `translate` does with them in a network, with every translator in closed form."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from paramtrans.api.adapter import BlockAdapter
from paramtrans.api.block_module import has_branch
from paramtrans.errors import SpecMismatch
from paramtrans.networks.block_translation import translate_block
from paramtrans.networks.blocks import factories
from paramtrans.networks.blocks.finding import NetworkBlock, find_blocks, survey
from paramtrans.networks.blocks.input_cache import InputCache
from paramtrans.plugins.registry import Registry
from paramtrans.testing import blocks, symmetries
from paramtrans.testing.check import CheckFailed, Subject, check, expect, named
from paramtrans.testing.samples import entering, loads, randomised, trials
from paramtrans.testing.translators import described

SAME = 0.1
"""Largest feature error of a block of the source's own sizes: rounding, to a few bits too."""
CONSTANT = 1.0
"""Largest feature error of a block of half the units that is solved for: that of the mean of what the source gives."""
DECLARED = (
    blocks.declared_tensors,
    blocks.keeps_the_shape,
    blocks.loads_strictly,
    blocks.branch_is_what_is_added,
    blocks.closing_ends_the_block,
    blocks.readers_complete_the_block,
    blocks.readers_read_what_is_declared,
    symmetries.symmetries_leave_the_function,
)
"""Where one of these does not hold, it says so itself, and no translation can come out well."""


@check("block_adapter")
def survives_translation(subject: Subject) -> None:
    """Every closed form of `translate` writes the block again at its own size, and near it at half of its units."""
    if not all(_holds(promise, subject) for promise in DECLARED):
        return
    network, block, inputs = _standing(subject)
    promised = has_branch(network[0]) or not block.adapter.readers()
    expect(promised, "a method `branch`, which `readers` are said to end", f"none of {type(network[0]).__name__}")
    if type(block.adapter).recognise.__func__ is not BlockAdapter.recognise.__func__:  # type: ignore[attr-defined]
        refused = survey(network, [block], inputs).refused
        expect(not refused, "a block that `translate` takes", f"one of which it says that {refused.get('0')}")
    for target in _targets(block.adapter):
        for name, options in _closed_forms(subject).items():
            _try(subject.registry, (name, options), (network, block, inputs), target)


def _holds(promise: Any, subject: Subject) -> bool:
    try:
        return not promise.applies(subject) or promise(subject) is None
    except CheckFailed:
        return False


def _standing(subject: Subject) -> tuple[nn.Sequential, NetworkBlock, Tensor]:
    """A network that is a block and no more, the block as `translate` finds it or would find it, and inputs."""
    adapter = subject.create()
    network = nn.Sequential(adapter.module()).eval()
    network.load_state_dict({f"0.{name}": t[0] for name, t in randomised(adapter, 1).items()}, strict=False)
    inputs = entering(adapter).flatten(0, 1)
    unlike: dict[str, str] = {}
    blocks = find_blocks(network, Registry([subject.entry]), unlike_paths=unlike)
    expect(bool(blocks) or not unlike, "`recognise` to name layers that are the adapter's", named(unlike.values()))
    for block in blocks:
        if block.path == "0" and block.whole:
            return network, block, inputs
    layers = {path: f"0.{path}".strip(".") for path, _ in network[0].named_modules()}
    return network, NetworkBlock("0", subject.name, adapter, layers, whole=True), inputs


def _targets(adapter: BlockAdapter) -> Iterator[BlockAdapter]:
    """Blocks to write: one of the same size, and one of half the units where the adapter says how that is made."""
    yield adapter
    sizes = {group.name: max(1, group.size // 2) for group in adapter.spec.symmetries}
    try:
        half = adapter.with_sizes(sizes)
    except SpecMismatch:
        return
    made = {group.name: group.size for group in half.spec.symmetries}
    expect(made == sizes, f"groups of {sizes} units by `with_sizes`", made)
    yield half


def _closed_forms(subject: Subject) -> Mapping[str, dict[str, Any]]:
    """Translators that need neither training nor steps, with options: paramtrans' own, and those beside the adapter."""
    near = {"paramtrans", subject.entry.provider.distribution}
    entries = [e for e in subject.registry.of_kind("translator") if e.provider.distribution in near and loads(e)]
    tried = {e.name: (e.resolve(), trials(e.resolve(), "translator")) for e in entries}
    closed = {
        name for name, (cls, _) in tried.items() if not cls.learns and not (cls.adjusts_units and cls.needs_probes)
    }
    return {name: options[0] for name, (_, options) in tried.items() if options and name in closed}


def _try(
    registry: Registry,
    translator: tuple[str, dict[str, Any]],
    standing: tuple[nn.Sequential, NetworkBlock, Tensor],
    target: BlockAdapter,
) -> None:
    """Translate the block, unless the translator refuses these, and hold the error to what may be lost."""
    (name, options), (network, block, inputs) = translator, standing
    caches, small = InputCache([inputs]), copy.deepcopy(network)
    chain = [factories.translator_factory(name, options, registry)]
    try:
        made = translate_block(block, target, chain, (network, network, small), (caches, caches), seed=0)
    except SpecMismatch:
        return
    error, same = made.feature_error, target is block.adapter
    if error is not None and (same or registry.load("translator", name).solves_readers):
        worst = SAME if same else CONSTANT
        expect(error <= worst, f"a feature error of {worst:g} at most by {name} in {described(target)}", f"{error:.2g}")
