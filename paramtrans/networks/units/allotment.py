"""Widths of groups of units by measured loss: more units where they are worth more."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from paramtrans.errors import SpecMismatch
from paramtrans.networks.graph.groups import NamedGroup
from paramtrans.networks.graph.reconstruct import reconstruct
from paramtrans.networks.units.chain import UnitStep
from paramtrans.networks.units.choice import choose, written
from paramtrans.networks.units.rounding import Rounding
from paramtrans.networks.units.steps import Step, way_down
from paramtrans.networks.units.widths import Counts, GroupSizes

Cost = Callable[[Counts], float]


def allot(
    case: GroupSizes,
    translator: UnitStep,
    budget: float,
    what: str,
    shares: Sequence[float],
    rounding: Rounding,
) -> dict[NamedGroup, int]:
    """Numbers of units within a budget, whose errors, each group translated alone, have the least sum.

    Args:
        case: The groups.
        translator: What they are translated by to see what the network's output loses.
        budget: What the network may cost.
        what: `parameters`, `flops` (of one example) or `milliseconds` (for the first batch).
        shares: Of the units, each tried for every group.
        rounding: How numbers of units are rounded.

    Raises:
        SpecMismatch: the budget cannot be kept with these shares.
    """
    cost: Cost = getattr(case, what)
    saving: Cost = case.parameters if what == "parameters" else case.flops  # times are too rough to be compared singly
    steps = measured(case, translator, shares, rounding, saving)
    groups = list(steps)
    states = [
        {group: own[i].sizes[group.path] for (group, own), i in zip(steps.items(), at, strict=True)}
        for at in way_down(list(steps.values()))
    ]
    fitting = _first(states, lambda counts: cost(counts) <= budget)
    if fitting is None:
        raise SpecMismatch(
            f"a network of {budget:,} {what} cannot be made of this one with these shares: {cost(states[-1]):,} "
            "are left"
        )
    counts = states[fitting]
    if fitting == 0:
        return counts
    errors = {g: next(s.error for s in steps[g] if s.sizes[g.path] == counts[g]) for g in groups}
    changed = next(group for group in groups if states[fitting - 1][group] != counts[group])
    order = sorted(groups, key=lambda group: errors[group], reverse=True) if what == "parameters" else []
    for group in (changed, *(group for group in order if group is not changed)):
        counts = _wider(case, counts, group, rounding, lambda counts: cost(counts) <= budget)
    return counts


def measured(
    case: GroupSizes, translator: UnitStep, shares: Sequence[float], rounding: Rounding, saving: Cost
) -> dict[NamedGroup, list[Step]]:
    """For each group its widths, from all units to fewer, with what the network's output loses where it alone has them.

    One pass chooses the units of all groups at one share; each group is then solved for in a pass of its own.
    """
    whole = {group: len(group) for group in case.groups}
    most = saving(whole)
    steps = {group: [Step({group.path: len(group)}, 0, 0.0)] for group in case.groups}
    for share in sorted(shares, reverse=True):
        counts = {
            group: n for group, n in case.share(share, rounding).items() if n < steps[group][-1].sizes[group.path]
        }
        if not counts:
            continue
        chosen = choose(case.analysis, counts, translator, case.examples, case.seed)
        for group, units in chosen.kept.items():
            small = written(case.analysis, chosen, [group])
            solves = translator.component.solves_readers
            made = reconstruct(case.analysis, small, {group: units}, case.examples, solves, translator.ridge, case.seed)
            error = made.output if made.output is not None else max(made.errors.values(), default=0.0)
            saved = most - saving({**whole, group: len(units)})
            steps[group].append(Step({group.path: len(units)}, int(saved), error))
    return steps


def _first(states: Sequence[Counts], fits: Callable[[Counts], bool]) -> int | None:
    """The first of ever smaller networks that fits, by bisection; None where none does."""
    if not fits(states[-1]):
        return None
    low, high = 0, len(states) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(states[middle]) else (middle + 1, high)
    return low


def _wider(
    case: GroupSizes,
    counts: dict[NamedGroup, int],
    group: NamedGroup,
    rounding: Rounding,
    fits: Callable[[Counts], bool],
) -> dict[NamedGroup, int]:
    """The same with as many units of one group as fit."""
    low, high = counts[group], len(group)
    while low < high:
        middle = (low + high + 1) // 2
        tried = case.near(group, middle, rounding)
        if low < tried and fits({**counts, group: tried}):
            low = tried
        else:
            high = middle - 1
    return {**counts, group: low}
