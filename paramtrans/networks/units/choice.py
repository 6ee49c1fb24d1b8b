"""Which units of which groups stay: chosen by a translator, of groups that pass the proof."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from torch import Tensor, nn

from paramtrans.api.units import UnitCase
from paramtrans.errors import SpecMismatch
from paramtrans.networks.forward.examples import Examples
from paramtrans.networks.graph.groups import Analysis, Bundle, NamedGroup, Proven, prove_groups
from paramtrans.networks.graph.merging import merge, representatives
from paramtrans.networks.graph.narrow import narrow
from paramtrans.networks.graph.proof import advice, prove, with_random_constants
from paramtrans.networks.graph.unit_cases import choose_units
from paramtrans.networks.units.chain import UnitStep
from paramtrans.networks.units.selection import Selection
from paramtrans.utils.counts import counted


@dataclass(frozen=True)
class Chosen:
    """Which units of which groups stay."""

    proven: Proven
    retained: Mapping[NamedGroup, Tensor]
    shares: Mapping[NamedGroup, Tensor] = field(default_factory=dict)
    """Of the units that are merged, those in each that stays."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Groups that stay as they are, with the reason of each."""


def choose(
    analysis: Analysis,
    selection: Selection,
    step: UnitStep,
    examples: Examples,
    seed: int,
    scores: Mapping[str, Tensor] = MappingProxyType({}),
) -> Chosen:
    """Choose the units that stay, of the groups that pass the proof.

    Args:
        analysis: Of the network.
        selection: The groups, and how many units of each stay.
        step: The translator that chooses.
        examples: Calibration inputs, for a translator that looks at them.
        seed: For whatever is drawn.
        scores: By path, how much each unit counts, `[units]`, of groups of which the translator does not choose.

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
                return step.component.keep(step.options, case)
            merged = step.component.merge(step.options, case)
        except SpecMismatch as error:
            refused[group.path] = str(error)
            return None
        shares[group] = merged
        return representatives(merged, group, case.count)

    seen_examples = examples if step.component.needs_probes else None
    left_to_it = {group: count for group, count in proven.counts.items() if group not in scored}
    retained = choose_units(analysis, left_to_it, decide, seen_examples, seed)
    retained |= {group: group.units.choose(score, proven.counts[group]) for group, score in scored.items()}
    refused = {**proven.refused, **refused}
    if len(retained) < len(proven.counts):
        counts = {group: proven.counts[group] for group in retained}
        proven = _proven(analysis, counts, selection.together, refused)
        refused |= proven.refused
    retained = {group: retained[group] for group in proven.counts}
    return Chosen(proven, retained, {group: share for group, share in shares.items() if group in retained}, refused)


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
    removal = analysis.removal({group: chosen.retained[group] for group in groups})
    proof = prove(with_random_constants(analysis.network), removal, likely=chosen.proven.settings)
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


def _proven(
    analysis: Analysis, counts: Mapping[NamedGroup, int], together: Iterable[Bundle], refused: Mapping[str, str]
) -> Proven:
    """Groups that pass the proof; raises `SpecMismatch` where none does."""
    proven = prove_groups(analysis, counts, together)
    if not proven.counts:
        reasons_of = {**refused, **proven.refused}
        reasons = "; ".join(f"{path}: {reason}" for path, reason in list(reasons_of.items())[:3])
        hint = advice(analysis.network, reasons_of.values())
        raise SpecMismatch(
            f"of {counted(len(reasons_of), 'group of units')} none can be made smaller: {reasons}"
            f"{f'; {hint}' if hint else ''}"
        )
    return proven
