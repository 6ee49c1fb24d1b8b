"""Which units of which groups stay: chosen by a translator, of groups that pass the proof."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import torch
from torch import Tensor, nn

from paramtrans.api.units import UnitCase
from paramtrans.errors import SpecMismatch
from paramtrans.networks.forward.examples import Examples
from paramtrans.networks.graph.groups import Analysis, Bundle, NamedGroup, Proven, prove_groups
from paramtrans.networks.graph.merging import merge, representatives
from paramtrans.networks.graph.narrow import apply, narrow, shrink
from paramtrans.networks.graph.proof import (
    OTHER,
    TOLERANCE,
    advice,
    largest_difference,
    named_tensors,
    prove,
    run,
)
from paramtrans.networks.graph.stand_ins import stand_ins
from paramtrans.networks.graph.unit_cases import choose_units
from paramtrans.networks.graph.waiting import Waiting, can_wait
from paramtrans.networks.units.chain import UnitStep
from paramtrans.networks.units.query_keys import query_keys
from paramtrans.networks.units.selection import Selection
from paramtrans.utils.counts import counted
from paramtrans.utils.precision import HALF

HALF_TOLERANCE = 0.05
"""Largest difference of outputs in half precision, relative to the largest output."""


SCALE = (
    "if its code scales products by the number of dimensions, let it keep the scale in an attribute (scale=self.scale)"
)
"""What is said of queries and keys without which a network computes something else."""


@dataclass(frozen=True)
class Chosen:
    """Which units of which groups stay."""

    proven: Proven
    retained: Mapping[NamedGroup, Tensor]
    shares: Mapping[NamedGroup, Tensor] = field(default_factory=dict)
    """Of the units that are merged, those in each that stays."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Groups that stay as they are, with the reason of each."""
    waiting: Waiting | None = None
    """Groups whose units are chosen later, where what reads them is solved for."""


def choose(
    analysis: Analysis,
    selection: Selection,
    step: UnitStep,
    examples: Examples,
    seed: int,
    scores: Mapping[str, Tensor] = MappingProxyType({}),
    later: bool = False,
) -> Chosen:
    """Choose the units that stay, of the groups that pass the proof.

    Args:
        analysis: Of the network.
        selection: The groups, and how many units of each stay.
        step: The translator that chooses.
        examples: Calibration inputs, for a translator that looks at them.
        seed: For whatever is drawn.
        scores: By path, how much each unit counts, `[units]`, of groups of which the translator does not choose.
        later: Whether units that one layer reads are chosen only when that is reached in the smaller network.

    Raises:
        SpecMismatch: no group passes the proof.
    """
    proven = _proven(analysis, selection.counts, selection.together, {})
    scored = {group: scores[group.path] for group in proven.counts if group.path in scores}
    refused: dict[str, str] = {}
    shares: dict[NamedGroup, Tensor] = {}

    def decide(group: NamedGroup, case: UnitCase) -> Tensor | None:
        try:
            if not step.component.merges_units:
                return examples.processes.follow(step.component.keep(step.options, case))
            merged = examples.processes.follow(step.component.merge(step.options, case))
        except SpecMismatch as error:
            refused[group.path] = str(error)
            return None
        shares[group] = merged
        return representatives(merged, group, case.count)

    seen_examples = examples if step.component.needs_probes else None
    left_to_it = {group: count for group, count in proven.counts.items() if group not in scored}
    bundled = {group for bundle in selection.together for group in bundle}
    wait = {
        group: count
        for group, count in left_to_it.items()
        if later and group not in bundled and can_wait(group, proven.counts)
    }
    now = {group: count for group, count in left_to_it.items() if group not in wait}
    retained = choose_units(analysis, now, decide, seen_examples, seed) if now else {}
    follow = examples.processes.follow
    retained |= {group: follow(group.units.choose(score, proven.counts[group])) for group, score in scored.items()}
    retained = _whole_bundles(retained, selection.together, refused)
    refused |= proven.refused
    if len(retained) + len(wait) < len(proven.counts):
        counts = {group: proven.counts[group] for group in (*retained, *wait)}
        proven = _proven(analysis, counts, selection.together, refused)
        refused |= proven.refused
    retained = {group: retained[group] for group in proven.counts if group in retained}
    kept_shares = {group: share for group, share in shares.items() if group in retained}
    wait = {group: count for group, count in wait.items() if group in proven.counts}
    waiting = Waiting(analysis, wait, decide, examples.total) if wait else None
    return Chosen(proven, retained, kept_shares, refused, waiting)


def _whole_bundles(
    retained: Mapping[NamedGroup, Tensor], together: Iterable[Bundle], refused: dict[str, str]
) -> dict[NamedGroup, Tensor]:
    """The groups that were chosen from, but those that go with a group that the translator refused; said in
    `refused`."""
    whole = dict(retained)
    for bundle in together:
        reasons = [f"{group.title}, of which {refused[group.path]}" for group in bundle if group.path in refused]
        for group in bundle if reasons else ():
            if whole.pop(group, None) is not None:
                refused[group.path] = f"becomes smaller together with {reasons[0]}; take another translator"
    return whole


def write_network(analysis: Analysis, chosen: Chosen, groups_alone: Iterable[NamedGroup] | None = None) -> nn.Module:
    """A copy of the network with the chosen units alone.

    Args:
        analysis: Of the network.
        chosen: Which units stay.
        groups_alone: Groups that become smaller; None for all that were chosen from.

    Raises:
        SpecMismatch: the chosen units do not pass the proof.
    """
    groups = [*chosen.retained] if groups_alone is None else [*groups_alone]
    if not groups:
        return copy.deepcopy(analysis.network)
    removal = analysis.removal({group: chosen.retained[group] for group in groups})
    proof = prove(stand_ins(analysis.network), removal, likely=chosen.proven.settings)
    if proof.failure is not None:
        raise SpecMismatch(f"the units that are kept cannot be kept alone: {proof.failure}")
    narrowed = narrow(analysis.network, removal, list(proof.settings))
    merge(
        analysis,
        narrowed,
        removal.retained(),
        {group: unit_shares for group, unit_shares in chosen.shares.items() if group in groups},
    )
    return narrowed


def write_rest(analysis: Analysis, small: nn.Module, chosen: Chosen) -> tuple[nn.Module, Chosen]:
    """A smaller network without the units that go of groups which waited, and what was chosen of all groups.

    Args:
        analysis: Of the untouched network.
        small: Has all units of these groups, of which nothing reads those that go.
        chosen: With the groups that waited.

    Raises:
        SpecMismatch: it cannot be written, or gives something else.
    """
    assert chosen.waiting is not None
    retained = {**chosen.retained, **chosen.waiting.retained}
    removal, fixed = analysis.removal(retained), analysis.removal(chosen.retained).retained()
    proof = prove(stand_ins(analysis.network), removal, likely=chosen.proven.settings)
    if proof.failure is not None:
        raise SpecMismatch(f"the units that are kept cannot be kept alone: {proof.failure}")
    rest = {
        name: [torch.searchsorted(before, after) for before, after in zip(fixed[name], axes, strict=True)]
        if name in fixed
        else axes
        for name, axes in removal.retained().items()
    }
    written = copy.deepcopy(small)
    shrink(written, rest)
    apply(written, list(proof.settings))
    half = any(tensor.dtype in HALF for tensor in named_tensors(small).values())
    difference = largest_difference(run(small, analysis.program), run(written, analysis.program))
    if not difference <= (HALF_TOLERANCE if half else TOLERANCE):
        raise SpecMismatch(f"without units that nothing reads it gives something else (by {difference:.1e})")
    proven = replace(chosen.proven, counts={group: chosen.proven.counts[group] for group in retained})
    return written, replace(chosen, proven=proven, retained=retained, waiting=None)


def _proven(
    analysis: Analysis, counts: Mapping[NamedGroup, int], together: Iterable[Bundle], refused: Mapping[str, str]
) -> Proven:
    """Groups that pass the proof; raises `SpecMismatch` where none does."""
    proven = prove_groups(analysis, counts, together)
    for group in query_keys(analysis, counts):
        if proven.refused.get(group.path, "").startswith(OTHER):
            proven.refused[group.path] += f"; {SCALE}"
    if not proven.counts:
        reasons_of = {**refused, **proven.refused}
        titles = {group.path: group.title for group in analysis.groups}
        reasons = "; ".join(f"{titles[path]}: {reason}" for path, reason in list(reasons_of.items())[:3])
        hint = advice(analysis.network, reasons_of.values())
        raise SpecMismatch(
            f"of {counted(len(reasons_of), 'group of units')} none can be made smaller: {reasons}"
            f"{f'; {hint}' if hint else ''}"
        )
    return proven
