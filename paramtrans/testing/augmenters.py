"""Checks of augmenters."""

from __future__ import annotations

import torch

from paramtrans.api.adapter import BlockAdapter
from paramtrans.api.stacking import Params
from paramtrans.testing.check import Subject, check, copied, differing, drawing, expect, named
from paramtrans.testing.samples import partners, randomised, source_of

SEEDS = (3, 4, 5)


def _augmented(
    subject: Subject, params: Params, seed: int, draws: int = 0, adapter: BlockAdapter | None = None
) -> Params:
    spec = (adapter or source_of(subject)).spec
    with drawing(draws):
        changed: Params = subject.create().change(copied(params), spec, torch.Generator().manual_seed(seed))
    return changed


@check("augmenter")
def keeps_names_shapes_and_types(subject: Subject) -> None:
    """What comes out has the names, shapes and types of what went in, whatever block it is."""
    for adapter in partners(subject):
        params = randomised(adapter, 8)
        changed = _augmented(subject, params, SEEDS[0], adapter=adapter)
        wanted, shapes = ({name: (list(t.shape), t.dtype) for name, t in stack.items()} for stack in (params, changed))
        expect(list(shapes.items()) == list(wanted.items()), str(wanted), shapes)


@check("augmenter")
def draws_from_its_generator(subject: Subject) -> None:
    """The generator alone decides: same seed same change, another seed another."""
    params = randomised(source_of(subject), 8)
    first, same = (_augmented(subject, params, SEEDS[0], draws) for draws in (1, 2))
    expect(
        not differing(first, same),
        "the same change from the same generator",
        f"{named(differing(first, same))} differ",
    )
    others = [_augmented(subject, params, seed) for seed in SEEDS]
    changes = any(differing(other, params) for other in others)
    is_random = any(differing(first, other) for other in others)
    expect(is_random or not changes, "another change from another seed", "the same from three seeds")


@check("augmenter")
def leaves_its_input_alone(subject: Subject) -> None:
    """The parameters it is given stay as they were."""
    params = randomised(source_of(subject), 8)
    given = copied(params)
    subject.create().change(given, source_of(subject).spec, torch.Generator().manual_seed(SEEDS[0]))
    expect(not differing(given, params), "its input untouched", f"{named(differing(given, params))} changed in place")


@check("augmenter")
def changes_something(subject: Subject) -> None:
    """With the options it is tried with, some seed changes some value."""
    params = randomised(source_of(subject), 8)
    changed = any(differing(_augmented(subject, params, seed), params) for seed in SEEDS)
    expect(changed, "other parameters from some of three seeds", "the same from all")
