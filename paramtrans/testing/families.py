"""Checks of translators that write several families of target blocks."""

from __future__ import annotations

from collections.abc import Sequence

from paramtrans.api import stacking as stacks
from paramtrans.api.adapter import BlockAdapter
from paramtrans.errors import SpecMismatch
from paramtrans.testing.check import Subject, check, differing, expect, named
from paramtrans.testing.samples import context, partners
from paramtrans.testing.translators import Pair, built, described, is_learned, pairs, reloaded, translated
from paramtrans.translators.base import LearnedTranslator


def _adds_families(subject: Subject) -> bool:
    return is_learned(subject) and subject.cls.add_family is not LearnedTranslator.add_family


@check("translator", when=_adds_families)
def families_stand_beside_each_other(subject: Subject) -> None:
    """With families added it writes blocks of each, at any of their sizes, and the same once saved and loaded; a family
    that was not added is refused, with `SpecMismatch`."""
    source = pairs(subject)[0].source
    targets = [target for target in partners(subject, every_trial=True) if _writes(subject, source, target)]
    first, *others = _of_different_families(subject, source, targets)
    several = built(subject, source, first, further=others[:-1])
    loaded = reloaded(subject, several.translator)
    sizes = [target for target in targets if _fits(several.translator, source, target)]
    for target in dict.fromkeys((first, *others[:-1], *sizes)):
        around = context(several.hosts, source, target)
        resized = [
            Pair(either.resized(source, target), several.hosts, around) for either in (several.translator, loaded)
        ]
        before, after = map(translated, resized)
        stacks.check(before, target.spec, f"{resized[0]}, one of {len(others)} families")
        infinite = [name for name, tensor in before.items() if not tensor.isfinite().all()]
        expect(not infinite, f"{resized[0]}: finite values", f"others in {named(infinite)}")
        expect(
            not differing(before, after),
            f"{resized[0]}: the same once loaded",
            f"{named(differing(before, after))} differ",
        )
    for target in others[-1:]:
        expect(not _fits(several.translator, source, target), f"SpecMismatch for {described(target)}", "a translator")


def _of_different_families(
    subject: Subject, source: BlockAdapter, targets: Sequence[BlockAdapter]
) -> list[BlockAdapter]:
    """The first target of each family, as the translator tells them apart."""
    families: list[BlockAdapter] = []
    for target in targets:
        if not any(_fits(subject.create(source, family), source, target) for family in families):
            families.append(target)
    return families


def _writes(subject: Subject, source: BlockAdapter, target: BlockAdapter) -> bool:
    try:
        subject.create(source, target)
    except SpecMismatch:
        return False
    return True


def _fits(translator: LearnedTranslator, source: BlockAdapter, target: BlockAdapter) -> bool:
    try:
        translator.resized(source, target)
    except SpecMismatch:
        return False
    return True
