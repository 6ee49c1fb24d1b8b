"""Widths of groups of units by measured loss: more units where the output depends on them more."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from paramtrans.errors import SpecMismatch
from paramtrans.networks.forward.examples import Examples
from paramtrans.networks.graph.groups import NamedGroup
from paramtrans.networks.graph.reconstruct import reconstruct
from paramtrans.networks.units.chain import UnitStep
from paramtrans.networks.units.choice import Chosen, choose, write_network
from paramtrans.networks.units.rounding import Rounding
from paramtrans.networks.units.selection import Selection
from paramtrans.networks.units.steps import Step, way_down
from paramtrans.networks.units.widths import Counts, GroupSizes

Cost = Callable[[Counts], float]


def allocate(
    case: GroupSizes,
    translator: UnitStep,
    budget: float,
    measure: str,
    shares: Sequence[float],
    rounding: Rounding,
) -> dict[NamedGroup, int]:
    """Numbers of units within a budget, whose errors, each group translated alone, have the least sum.

    Args:
        case: The groups.
        translator: Translates each group, to measure what the network's output loses.
        budget: What the network may cost.
        measure: `parameters`, `flops` (of one example) or `milliseconds` (for the first batch).
        shares: Of the units, each tried for every group.
        rounding: How numbers of units are rounded.

    Returns:
        For each group, how many units stay.

    Raises:
        SpecMismatch: the budget cannot be kept with these shares.
    """
    cost: Cost = getattr(case, measure)
    saving: Cost = (
        case.parameters if measure == "parameters" else case.flops
    )  # times are too rough to be compared singly
    steps = measure_steps(case, translator, shares, rounding, saving)
    groups = list(steps)
    states = [
        {
            group: group_steps[i].sizes[group.path]
            for (group, group_steps), i in zip(steps.items(), numbers, strict=True)
        }
        for numbers in way_down(list(steps.values()))
    ]
    first_fitting = _first(states, lambda counts: cost(counts) <= budget)
    if first_fitting is None:
        raise SpecMismatch(
            f"a network of {budget:,} {measure} cannot be made of this one with these shares: "
            f"{round(cost(states[-1]), 3):,} are left"
        )
    counts = states[first_fitting]
    if first_fitting == 0:
        return counts
    errors = {g: next(s.error for s in steps[g] if s.sizes[g.path] == counts[g]) for g in groups}
    changed_last = next(group for group in groups if states[first_fitting - 1][group] != counts[group])
    order = sorted(groups, key=lambda group: errors[group], reverse=True) if measure == "parameters" else []
    for group in (changed_last, *(group for group in order if group is not changed_last)):
        counts = _wider(case, counts, group, rounding, lambda counts: cost(counts) <= budget)
    return counts


def measure_steps(
    case: GroupSizes, translator: UnitStep, shares: Sequence[float], rounding: Rounding, saving: Cost
) -> dict[NamedGroup, list[Step]]:
    """Widths of each group, from all units to fewer, with what the network's output loses where it alone has them.

    One pass chooses the units of all groups at one share; each group is then solved for in a pass of its own.

    Args:
        case: The groups.
        translator: Chooses units and, where it can, solves for the layers that read them.
        shares: Of the units, each tried for every group.
        rounding: How numbers of units are rounded.
        saving: What a network with these numbers of units costs, in the unit in which savings are counted.
    """
    sizes = {group: len(group) for group in case.groups}
    full_cost = saving(sizes)
    steps = {group: [Step({group.path: len(group)}, 0, 0.0)] for group in case.groups}
    for share in sorted(shares, reverse=True):
        counts = {
            group: n for group, n in case.share(share, rounding).items() if n < steps[group][-1].sizes[group.path]
        }
        if not counts:
            continue
        chosen = choose(case.analysis, Selection(counts), translator, case.examples, case.seed)
        for group, error in _errors(case, chosen, translator).items():
            count = len(chosen.retained[group])
            saved = full_cost - saving({**sizes, group: count})
            steps[group].append(Step({group.path: count}, int(saved), error))
    return steps


def _errors(case: GroupSizes, chosen: Chosen, translator: UnitStep) -> dict[NamedGroup, float]:
    """What the network's output loses where each group alone has its chosen units. Processes share out the groups."""
    groups, processes, solves = list(chosen.retained), case.examples.processes, translator.component.solves_readers
    errors, examples = torch.zeros(len(groups), dtype=torch.double), Examples(case.examples.batches)
    for number in processes.share(len(groups)):
        units = {groups[number]: chosen.retained[groups[number]]}
        narrowed = write_network(case.analysis, chosen, units)
        result = reconstruct(
            case.analysis, narrowed, units, examples, solves, translator.ridge, case.seed, outputs=True
        )
        errors[number] = result.output if result.output is not None else max(result.errors.values(), default=0.0)
    processes.add([errors])
    return dict(zip(groups, errors.tolist(), strict=True))


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
    count_fits, high = counts[group], len(group)
    while count_fits < high:
        middle = (count_fits + high + 1) // 2
        count = case.near(group, middle, rounding)
        if count_fits < count and fits({**counts, group: count}):
            count_fits = count
        else:
            high = middle - 1
    return {**counts, group: count_fits}
