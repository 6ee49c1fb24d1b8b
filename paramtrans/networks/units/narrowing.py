"""Networks made smaller by groups of units that their graph shows, whatever their layers are called."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from paramtrans.errors import SpecMismatch
from paramtrans.networks.blocks.finding import some_of
from paramtrans.networks.forward.activations import Inputs, arguments, first_examples
from paramtrans.networks.forward.examples import Examples
from paramtrans.networks.graph.adjust import AT_ONCE, adjust_groups
from paramtrans.networks.graph.groups import Analysis, NamedGroup, Proven, analyse
from paramtrans.networks.graph.inventory import training_layers
from paramtrans.networks.graph.narrow import Setting, changed_numbers
from paramtrans.networks.graph.pieces import Pieces
from paramtrans.networks.graph.proof import advice
from paramtrans.networks.graph.reconstruct import reconstruct
from paramtrans.networks.graph.waiting import Waiting
from paramtrans.networks.stream.modules import ModuleChange
from paramtrans.networks.stream.rotation import Rotated, rotated
from paramtrans.networks.units.chain import UnitStep
from paramtrans.networks.units.choice import Chosen, choose, write_network, write_rest
from paramtrans.networks.units.narrowed import NarrowedGroup, narrowed_groups
from paramtrans.networks.units.query_keys import in_principal_axes, query_keys
from paramtrans.networks.units.selection import Asked, Selection, selected
from paramtrans.networks.units.widths import keeps_budget
from paramtrans.plugins.registry import Registry
from paramtrans.utils import seeds
from paramtrans.utils.counts import counted
from paramtrans.utils.distributed import ALONE, ProcessGroup
from paramtrans.utils.progress import Reporter

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NarrowedNetwork:
    """A smaller network, and what was done to it."""

    network: nn.Module
    groups: tuple[NarrowedGroup, ...]
    settings: tuple[Setting, ...]
    """Numbers that layers and modules hold, and that changed."""
    refused: Mapping[str, str]
    """Groups that stay as they are, as they are called, with the reason of each."""
    modules: tuple[ModuleChange, ...] = ()
    """Modules that became others as streams were rotated."""


def example_arguments(batch: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Two examples of a batch, as a network is called with them: by position, and by name."""
    return arguments(first_examples(batch, 2))


def narrow_network(
    network: nn.Module,
    steps: Sequence[UnitStep],
    *,
    asked: Asked,
    batches: Iterable[Inputs],
    seed: int,
    reporter: Reporter,
    registry: Registry,
    processes: ProcessGroup = ALONE,
) -> NarrowedNetwork:
    """A copy of `network`, which is in eval mode, with fewer units in some of its groups.

    Args:
        network: Any network that `torch.export` can follow.
        steps: A translator that chooses units, and those that go on from what it wrote.
        asked: What is to become smaller.
        batches: Calibration inputs, at least one.
        seed: For whatever is drawn.
        reporter: Shows the progress.
        registry: The plugins; architecture sources let their configs follow.
        processes: Those that were given the same, and share the passes.

    Raises:
        SpecMismatch: no group can be made smaller as asked, or the network cannot be followed.
    """
    batch_list = list(batches)
    examples = Examples(batch_list, processes)
    example = example_arguments(batch_list[0])
    rotation = rotated(network, example, examples.fitted(), registry) if asked.rotate else None
    analysis = analyse(rotation.network if rotation else network, example, asked.stream is not None)
    energies = _energies(analysis, rotation) if rotation else {}
    later = getattr(steps[0].options, "choose", "before") == "there" and asked.stream is None
    choice = partial(_choice, analysis, asked, steps[0], examples, seed, energies)
    analysis, chosen = choice(later)
    if not chosen.retained and chosen.waiting is None:
        return NarrowedNetwork(copy.deepcopy(network), (), (), {})
    try:
        small, chosen, errors, settings = _written(analysis, chosen, steps, examples, seed, reporter)
    except SpecMismatch:
        if not later:
            raise
        analysis, chosen = choice(False)
        small, chosen, errors, settings = _written(analysis, chosen, steps, examples, seed, reporter)
    titles = {group.path: group.title for group in analysis.groups}
    refused = {titles[path]: reason for path, reason in chosen.refused.items()}
    for title, reason in refused.items():
        log.warning("%s stays as it is: %s", title, reason)
    if hint := advice(network, chosen.refused.values()):
        log.warning(hint)
    if unsolved := _unsolved(analysis, chosen.retained, steps):
        log.warning(
            "%s: no layer that reads these units can be solved for, as of transposed and grouped convolutions and of "
            "einsum, so nothing there makes up for those that go",
            some_of(unsolved, 4),
        )
    if any(step.component.adjusts_units for step in steps):
        errors = _adjusted(analysis, small, chosen.retained, steps, examples, seed, reporter)
    looks_at_inputs = any(step.component.needs_probes or step.component.solves_readers for step in steps)
    held_out = examples.enough or not looks_at_inputs
    if not held_out:
        log.warning(examples.too_few())
    if layers := training_layers(analysis, small):
        log.warning(
            "%s: no output in eval mode depends on them, so they keep their sizes, though what they read may have "
            "fewer features now; take them out before you train the result",
            some_of(layers, 4),
        )
    counts = {group: chosen.proven.counts[group] for group in chosen.retained}
    groups = narrowed_groups(analysis, counts, errors, held_out, network, small)
    return NarrowedNetwork(small, groups, settings, refused, rotation.changes if rotation else ())


def _choice(
    analysis: Analysis,
    asked: Asked,
    step: UnitStep,
    examples: Examples,
    seed: int,
    energies: Mapping[str, Tensor],
    later: bool,
) -> tuple[Analysis, Chosen]:
    """Which units stay, and the analysis of the network with queries and keys in their principal axes.

    Where groups are refused that a budget counted on, the others make up for them. With `later`, units that one layer
    reads are chosen when that is reached, by what it is to give there.
    """
    refused: dict[str, str] = {}
    while True:
        try:
            selection = selected(analysis, asked, examples, seed, refused)
        except SpecMismatch as error:
            reasons = "; ".join(f"{path} stays as it is: {reason}" for path, reason in list(refused.items())[:3])
            raise SpecMismatch(f"{error}; {reasons}" if refused else str(error)) from error
        selection = _as_led(selection, analysis.groups, examples.processes)
        if not selection.counts:
            return analysis, Chosen(Proven({}), {}, refused=refused)
        turned, scores = in_principal_axes(analysis, query_keys(analysis, selection.counts), examples, seed)
        in_axes = replace(analysis, network=turned)
        chosen = choose(in_axes, selection, step, examples, seed, {**scores, **energies}, later)
        new = chosen.refused.keys() - refused.keys()
        refused |= chosen.refused
        if not new or not keeps_budget(asked.widths):
            return in_axes, replace(chosen, refused=refused)


def _as_led(selection: Selection, groups: Sequence[NamedGroup], processes: ProcessGroup) -> Selection:
    """The selection of the process that leads, in its order: measured times differ."""
    places = {group: place for place, group in enumerate(selection.counts, 1)}
    said = torch.tensor([[places.get(group, 0), selection.counts.get(group, 0)] for group in groups])
    led = sorted((place, number, count) for number, (place, count) in enumerate(processes.follow(said).tolist()))
    return replace(selection, counts={groups[number]: count for place, number, count in led if place})


def _written(
    analysis: Analysis, chosen: Chosen, steps: Sequence[UnitStep], examples: Examples, seed: int, reporter: Reporter
) -> tuple[nn.Module, Chosen, dict[NamedGroup, float], tuple[Setting, ...]]:
    """The smaller network with layers solved for, what was chosen, the error of each group, and changed numbers."""
    small = write_network(analysis, chosen)
    settings, waiting = [*changed_numbers(analysis.network, small)], chosen.waiting
    errors = _reconstructed(analysis, small, chosen.retained, waiting, steps, examples, seed, reporter)
    if waiting is not None:
        whole, (small, chosen) = small, write_rest(analysis, small, chosen)
        settings += changed_numbers(whole, small)
    errors = {group: error for group, error in errors.items() if group in chosen.retained}
    return small, chosen, errors, tuple(settings)


def _energies(analysis: Analysis, rotation: Rotated) -> dict[str, Tensor]:
    """By the path of each rotated stream how much its units count, `[units]`."""
    energies: dict[str, Tensor] = {}
    for group in analysis.groups:
        axes = {(axis.tensor, axis.axis): axis.indices[:, 0] for axis in group.units.axes if group.stream}
        for stream in rotation.streams:
            for touched in axes.keys() & {*stream.axes}:
                energies[group.path] = stream.energies[axes[touched]]
    return energies


def _unsolved(analysis: Analysis, groups: Iterable[NamedGroup], steps: Sequence[UnitStep]) -> list[str]:
    """Groups, as they are called, that a translator which solves for readers can solve nothing for."""
    if not any(step.component.solves_readers for step in steps):
        return []
    unsolved = [group for group in groups if not any(layer.solvable for layer in group.readers)]
    compared = query_keys(analysis, unsolved)  # which need no layer solved for
    return [group.title for group in unsolved if group not in compared]


def _named_count(groups: Iterable[NamedGroup]) -> str:
    return counted(len(list(groups)), "group of units")


def _reconstructed(
    analysis: Analysis,
    small: nn.Module,
    retained: Mapping[NamedGroup, Tensor],
    waiting: Waiting | None,
    steps: Sequence[UnitStep],
    examples: Examples,
    seed: int,
    reporter: Reporter,
) -> dict[NamedGroup, float]:
    """Layers that read units solved for, where a translator says so; the largest error of those that read a group."""
    solver = next((step for step in reversed(steps) if step.component.solves_readers), None)
    groups = [*retained, *(waiting.counts if waiting else ())]
    layers = {layer.weight for group in groups for layer in (*group.readers, *group.writers)}
    what = f"translating {_named_count(groups)}, by {counted(len(layers), 'layer')}"
    with reporter.stage(what, len(layers)) as stage:
        reconstruction = reconstruct(
            analysis,
            small,
            retained,
            examples,
            solver is not None,
            solver.ridge if solver else None,
            seed,
            waiting=waiting,
            advance=lambda path: stage.advance(note=path),
        )
    errors_of = {
        group: [
            reconstruction.errors[reader.weight] for reader in group.readers if reader.weight in reconstruction.errors
        ]
        for group in groups
    }
    return {group: max(errors) for group, errors in errors_of.items() if errors}


def _adjusted(
    analysis: Analysis,
    small: nn.Module,
    retained: Mapping[NamedGroup, Tensor],
    steps: Sequence[UnitStep],
    examples: Examples,
    seed: int,
    reporter: Reporter,
) -> dict[NamedGroup, float]:
    """Groups that translators go on from, one translator after the other; the errors in the end."""
    groups, left = list(retained), dict[str, str]()
    pieces: Pieces | None = None
    for number, step in enumerate(steps):
        if not step.component.adjusts_units:
            continue
        pieces = Pieces(analysis, analysis.removal(retained), small, examples, getattr(step.options, "batch", AT_ONCE))
        step_seed = seeds.derive(seed, "translator", number)

        def adjust(piece: Any, step: UnitStep = step) -> Mapping[str, Tensor]:
            return step.component.adjust(step.options, piece)

        with reporter.stage(f"{step.name}: {_named_count(groups)}", len(groups)) as stage:
            left |= adjust_groups(pieces, groups, step.name, adjust, step_seed, lambda path: stage.advance(note=path))
    for title, reason in left.items():
        log.warning("%s stays as it was written: %s", title, reason)
    assert pieces is not None
    return pieces.errors(groups)
