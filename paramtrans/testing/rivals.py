"""Checks of rivals."""

from __future__ import annotations

from dataclasses import replace

import torch

from paramtrans.api import stacking as stacks
from paramtrans.api.rival import RivalCase
from paramtrans.api.stacking import Params
from paramtrans.testing.check import Subject, check, differing, drawing, expect, named
from paramtrans.testing.samples import in_own_memory, partners, rival_case, source_of, untouched


def _filled(subject: Subject, case: RivalCase, draws: int = 0) -> Params:
    pairs = None if case.pairs is None else in_own_memory(case.pairs)
    with drawing(draws):
        filled: Params = subject.create().fill(replace(case, hosts=in_own_memory(case.hosts), pairs=pairs))
    return filled


@check("rival")
def fills_every_slot(subject: Subject) -> None:
    """Every host gets a target block: its tensors, finite, variances above zero."""
    for target in partners(subject):
        case = rival_case(source_of(subject), target)
        filled = _filled(subject, case)
        stacks.check(filled, target.spec, type(target).__name__)
        expect(stacks.models(filled) == len(case.hosts), f"{len(case.hosts)} blocks", stacks.models(filled))
        for tensor in target.spec.tensors:
            values = filled[tensor.name]
            expect(bool(values.isfinite().all()), f"finite values in {tensor.name}", "others")
            expect(values.dtype == torch.float32, f"{tensor.name} in float32", values.dtype)
            if tensor.positive:
                expect(bool((values > 0).all()), f"values above zero in {tensor.name}", float(values.min()))


@check("rival")
def same_case_same_blocks(subject: Subject) -> None:
    """The case and its seed decide; torch's own random numbers do not."""
    for target in partners(subject):
        case = rival_case(source_of(subject), target)
        wrong = differing(_filled(subject, case, draws=1), _filled(subject, case, draws=2))
        expect(not wrong, "the same blocks again", f"{named(wrong)} differ")


@check("rival")
def filling_leaves_no_trace(subject: Subject) -> None:
    """Hosts and pairs stay as they were."""
    case = rival_case(source_of(subject), partners(subject)[-1])
    given = replace(case, hosts=in_own_memory(case.hosts), pairs=in_own_memory(case.pairs) if case.pairs else None)
    subject.create().fill(given)
    untouched(given.hosts, case.hosts)
    if given.pairs is not None and case.pairs is not None:
        untouched(given.pairs, case.pairs)


@check("rival", when=lambda subject: not subject.cls.needs_pairs)
def does_without_pairs(subject: Subject) -> None:
    """It fills slots without training pairs, unless it says `needs_pairs`."""
    case = rival_case(source_of(subject), partners(subject)[-1], pairs=False)
    filled = _filled(subject, case)
    expect(len(next(iter(filled.values()))) == len(case.hosts), f"{len(case.hosts)} blocks", "another number")
