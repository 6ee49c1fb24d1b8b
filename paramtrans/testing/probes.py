"""Checks of probes."""

from __future__ import annotations

import torch
from torch import Tensor

from paramtrans.api.hosts import Hosts
from paramtrans.api.probes import ProbeCase
from paramtrans.testing.check import Subject, check, drawing, expect
from paramtrans.testing.samples import MODELS, SIDE, Slot, SlotOptions, hosts, in_own_memory, source_of, untouched


def _drawn(subject: Subject, seed: int, draws: int = 0, given: Hosts | None = None) -> Tensor:
    source = source_of(subject)
    case = ProbeCase(
        (1, SIDE, SIDE), torch.Generator().manual_seed(seed), Slot(SlotOptions()), given or hosts(source, None), source
    )
    with drawing(draws):
        drawn: Tensor = subject.create().draw(case)
    return drawn


@check("probe")
def are_network_inputs(subject: Subject) -> None:
    """`count` inputs of the network's shape, for each host its own where it says so; finite, without a graph."""
    drawn, options = _drawn(subject, 3), subject.create().options
    wanted = [options.count, 1, SIDE, SIDE]
    wanted = [MODELS, *wanted] if subject.cls.own_inputs else wanted
    if subject.cls.real:  # there may be fewer images than were asked for
        wanted[-4] = min(wanted[-4], len(Slot(SlotOptions()).split("train")))
    expect(list(drawn.shape) == wanted, f"shape {wanted}", list(drawn.shape))
    expect(drawn.dtype == torch.float32 and bool(drawn.isfinite().all()), "finite float32", drawn.dtype)
    expect(not drawn.requires_grad, "inputs without a graph", "a graph behind them")


@check("probe")
def probes_are_drawn_from_the_generator(subject: Subject) -> None:
    """The case's generator alone decides: same seed same inputs, another seed others."""
    first, again, other = (_drawn(subject, seed, draws) for seed, draws in ((3, 1), (3, 2), (4, 1)))
    expect(torch.equal(first, again), "the same inputs from the same generator", "others")
    expect(not torch.equal(first, other), "other inputs from another seed", "the same")


@check("probe")
def drawing_leaves_no_trace(subject: Subject) -> None:
    """The hosts stay as they were."""
    before = hosts(source_of(subject), None)
    given = in_own_memory(before)
    _drawn(subject, 3, given=given)
    untouched(given, before)
