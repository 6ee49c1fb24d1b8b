"""Checks of translators that read and write tokens."""

from __future__ import annotations

from dataclasses import replace

import torch

from paramtrans.testing.check import Subject, check, copied, differing, drawing, expect, named
from paramtrans.testing.samples import randomised
from paramtrans.testing.translators import pairs, translated
from paramtrans.translators.base import TokenTranslator, positive


def _starts_at_a_template(subject: Subject) -> bool:
    return issubclass(subject.cls, TokenTranslator) and subject.options.get("start", "template") == "template"


@check("translator", when=_starts_at_a_template)
def fresh_it_writes_its_template(subject: Subject) -> None:
    """Before training it writes the template, whatever it reads: its last layer, which is zero at first, writes all."""
    for pair in pairs(subject):
        with drawing(0):
            translator = subject.create(pair.source, pair.target)
        wanted = positive(translator.writes.unpack(translator.template[None]), pair.target.spec)
        written = translated(replace(pair, translator=translator))
        for tensor in pair.target.spec.tensors:
            values, start = written[tensor.name], wanted[tensor.name]
            if values.shape[1:] == start.shape[1:] and (not tensor.positive or bool((values > 0).all())):
                same = torch.equal(values, start.expand_as(values))
                expect(same, f"{pair}: the template's {tensor.name}", "another: not the last Linear or Conv1d writes")


@check("translator", when=lambda subject: issubclass(subject.cls, TokenTranslator))
def tokens_are_the_blocks(subject: Subject) -> None:
    """Its tokens hold every value of the block it reads and of the block it writes, bit for bit."""
    for pair in pairs(subject):
        translator = pair.translator
        reading = translator.source.read(copied(pair.hosts.source))
        for layout, block in ((translator.reads, reading), (translator.writes, randomised(translator.target))):
            lost = differing(layout.unpack(layout.pack(block)), block)
            expect(not lost, f"{pair}: every value there and back", f"{named(lost)} changed")
