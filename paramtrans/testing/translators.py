"""Checks of translators, on pairs in which every block that they can translate has a part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from paramtrans.api import stacking as stacks
from paramtrans.api.adapter import BlockAdapter
from paramtrans.api.context import Context
from paramtrans.api.hosts import Hosts
from paramtrans.api.stacking import Params
from paramtrans.config.components import ComponentConfig
from paramtrans.errors import SpecMismatch
from paramtrans.testing.check import Subject, check, copied, differing, drawing, expect, named
from paramtrans.testing.samples import context, hosts, in_own_memory, neighbours, partners, untouched
from paramtrans.translators.base import LearnedTranslator
from paramtrans.translators.saving import load_translator, save_translator

TOLERANCE = 1e-4
"""Of the largest value: how far rounding may carry a solution when other models stand beside it."""
SEVERAL = 3
"""Pairs that the slower checks are made on."""


@dataclass(frozen=True)
class Pair:
    """Source and target blocks, with a translator between them as it is somewhere in training."""

    translator: Any
    hosts: Hosts
    context: Context
    written: Params = field(default_factory=dict)
    """What it wrote when it was first tried."""

    def __str__(self) -> str:
        return f"{described(self.translator.source)} → {described(self.translator.target)}"

    @property
    def source(self) -> BlockAdapter:
        adapter: BlockAdapter = self.translator.source
        return adapter

    @property
    def target(self) -> BlockAdapter:
        adapter: BlockAdapter = self.translator.target
        return adapter


def described(adapter: BlockAdapter) -> str:
    return f"{type(adapter).__name__}({adapter.options})"


def built(
    subject: Subject,
    source: BlockAdapter,
    target: BlockAdapter,
    seed: int = 0,
    count: int = 3,
    further: Sequence[BlockAdapter] = (),
) -> Pair:
    """A translator whose statistics are set and whose weights have left their start, which may be a mere template."""
    with drawing(seed):
        translator = subject.create(source, target)  # first, as most pairs that it refuses are refused here
        given, started_on = hosts(source, None, count), hosts(source, None, 8)
        if isinstance(translator, LearnedTranslator):
            for other in further:
                translator.add_family(other)
            translator.start(source.read(copied(started_on.source)), context(started_on, source, target))
            for parameter in translator.parameters():
                parameter.data.add_(0.1 * torch.randn(parameter.shape))
            translator.eval()
    return Pair(translator, given, context(given, source, target))


def translated(pair: Pair, index: tuple[int, ...] = (0, 1, 2), seed: int = 0) -> Params:
    """Its translation of the hosts at `index`; what it draws of torch's own random numbers begins at `seed`."""
    around = surroundings(pair, index)
    assert around.hosts is not None
    with drawing(seed):
        written: Params = pair.translator.translate(copied(around.hosts.source), around)
    return written


def surroundings(pair: Pair, index: tuple[int, ...] = (0, 1, 2)) -> Context:
    """The context of some hosts, in memory of its own."""
    return replace(pair.context, hosts=in_own_memory(pair.hosts)).pick(index)


def attempts(subject: Subject, all_pairs: bool = False) -> tuple[list[Pair], dict[str, str]]:
    """The pairs it translates, and what it answers to others.

    Each block is a source once and a target once, where it can be, in some trial of its own. Every pair in every trial
    takes minutes, and is tried where `all_pairs` says so.
    """
    taken: list[Pair] = []
    answers: dict[str, str] = {}
    sources: set[type[BlockAdapter]] = set()
    targets: set[type[BlockAdapter]] = set()
    for source, target in _candidates(subject):
        if not all_pairs and type(source) in sources and type(target) in targets:
            continue
        try:
            pair = built(subject, source, target)
            taken.append(replace(pair, written=translated(pair)))
            sources.add(type(source))
            targets.add(type(target))
        except Exception as error:  # which kind it is, `refuses_clearly` looks at
            answers[f"{described(source)} → {described(target)}"] = f"{type(error).__name__}: {error}"
    return taken, answers


def _candidates(subject: Subject) -> list[tuple[BlockAdapter, BlockAdapter]]:
    """Pairs of blocks to try it with; first those that show every block on both sides soonest."""
    every, first = partners(subject, every_trial=True), partners(subject)
    half = len(every) // 2
    wanted = list(zip(every, every[half:] + every[:half], strict=True))
    wanted += [(s, t) for s in first for t in first]
    wanted += [(s, first[0]) for s in every] + [(first[0], t) for t in every]
    return list(dict.fromkeys(wanted))


def pairs(subject: Subject) -> list[Pair]:
    """Pairs of blocks that it translates."""
    taken, _ = subject.once("attempts", lambda: attempts(subject))
    return taken


def some_pairs(subject: Subject) -> list[Pair]:
    """A few of them, spread over all."""
    taken = pairs(subject)
    return taken[:: max(1, -(-len(taken) // SEVERAL))]


def is_learned(subject: Subject) -> bool:
    return issubclass(subject.cls, LearnedTranslator)


@check("translator")
def refuses_clearly(subject: Subject) -> None:
    """It translates some pair of blocks, and answers to any other with `SpecMismatch`."""
    taken, answers = subject.once("attempts", lambda: attempts(subject))
    unclear = {pair: said for pair, said in answers.items() if not said.startswith(SpecMismatch.__name__)}
    expect(not unclear, "SpecMismatch for blocks it cannot translate", next(iter(unclear.items()), None))
    expect(bool(taken), "some pair of blocks that it translates", f"none: {next(iter(answers.items()), None)}")


@check("translator")
def writes_what_is_declared(subject: Subject) -> None:
    """It writes the tensors of the target: names, shapes, float32, finite, variances above zero."""
    for pair in pairs(subject):
        stacks.check(pair.written, pair.target.spec, str(pair))
        for tensor in pair.target.spec.tensors:
            values = pair.written[tensor.name]
            expect(values.dtype == torch.float32, f"{pair}: {tensor.name} in float32", values.dtype)
            expect(bool(values.isfinite().all()), f"{pair}: finite values in {tensor.name}", "others")
            if tensor.positive:
                expect(
                    bool((values > 0).all()),
                    f"{pair}: values above zero in {tensor.name}",
                    float(values.detach().min()),
                )


@check("translator")
def asks_for_probes(subject: Subject) -> None:
    """It does without probes, or says `needs_probes` and answers with `SpecMismatch` where there are none."""
    for pair in some_pairs(subject):
        around = replace(surroundings(pair), inputs=None)
        assert around.hosts is not None
        refused = ""
        with drawing(0):
            try:
                pair.translator.translate(around.hosts.source, around)
            except SpecMismatch as error:
                refused = str(error)
        if subject.cls.needs_probes:
            expect(bool(refused), f"{pair}: SpecMismatch without probes", "a translation")
        else:
            expect(not refused, f"{pair}: a translation without probes", refused)


@check("translator", when=is_learned)
def gradients_reach_every_input(subject: Subject) -> None:
    """What it writes has a finite gradient, not zero, in all it reads of the source and in each of its weights."""
    for pair in pairs(subject):
        translator = pair.translator
        reading = {n: t.requires_grad_() for n, t in translator.source.read(copied(pair.hosts.source)).items()}
        translator.zero_grad()
        written = translator(reading, pair.context)
        generator = torch.Generator().manual_seed(6)
        torch.stack([(t * torch.randn(t.shape, generator=generator)).sum() for t in written.values()]).sum().backward()
        missed = [n for n, t in (*reading.items(), *translator.named_parameters()) if not _reached(t.grad)]
        translator.zero_grad()
        expect(not missed, f"{pair}: a finite gradient everywhere", f"none in {named(missed)}")


def _reached(gradient: Tensor | None) -> bool:
    return gradient is not None and bool(gradient.any()) and bool(gradient.isfinite().all())


@check("translator")
def models_are_independent(subject: Subject) -> None:
    """A model's translation does not depend on the others it is stacked with, nor on their order."""
    for pair in some_pairs(subject):
        whole, part = translated(pair), translated(pair, (2, 0))
        for name, tensor in part.items():
            wanted = whole[name].detach()[[2, 0]]
            error = float((tensor.detach() - wanted).abs().max()) / float(wanted.abs().max().clamp_min(1e-3))
            expect(error <= TOLERANCE, f"{pair}: the same {name} in another stack", f"{error:.2g} of the largest apart")


@check("translator")
def same_seed_same_translation(subject: Subject) -> None:
    """A translation depends on nothing but the blocks; a new translator on nothing but the seed it is drawn from."""
    for pair in some_pairs(subject):
        first, again = translated(pair, seed=1), translated(pair, seed=2)
        expect(not differing(first, again), f"{pair}: the same translation twice", named(differing(first, again)))
        translator = pair.translator
        fresh = [translated(built(subject, pair.source, pair.target, seed=5), seed=3) for _ in range(2)]
        expect(not differing(*fresh), f"{pair}: the same from the same seed", named(differing(*fresh)))
        if isinstance(translator, nn.Module) and any(True for _ in translator.parameters()):
            other = translated(built(subject, pair.source, pair.target, seed=6), seed=3)
            expect(bool(differing(fresh[0], other)), f"{pair}: another translation from another seed", "the same")


@check("translator")
def translating_leaves_no_trace(subject: Subject) -> None:
    """The source blocks, the hosts and the translator's mode stay as they were; no gradient is kept."""
    for pair in some_pairs(subject):
        translator, source, around = pair.translator, copied(pair.hosts.source), surroundings(pair)
        if isinstance(translator, nn.Module):
            translator.train()
        with drawing(0):
            written = translator.translate(source, around)
        changed = differing(source, pair.hosts.source)
        expect(not changed, f"{pair}: the source blocks untouched", f"{named(changed)} changed")
        assert around.hosts is not None
        untouched(around.hosts, pair.hosts)
        if isinstance(translator, nn.Module):
            expect(translator.training, f"{pair}: the translator still in training mode", "in eval mode")
            translator.eval()
        kept = [name for name, tensor in written.items() if tensor.requires_grad]
        expect(not kept, f"{pair}: tensors without a graph", f"a graph behind {named(kept)}")


@check("translator")
def saved_and_loaded_it_is_the_same(subject: Subject) -> None:
    """Written as safetensors and JSON and read again, it has the same state and translates alike, bit for bit."""
    for pair in some_pairs(subject):
        translator = pair.translator
        before, after = translated(pair), translated(replace(pair, translator=reloaded(subject, translator)))
        expect(
            not differing(before, after), f"{pair}: the same translation", f"{named(differing(before, after))} differ"
        )


def reloaded(subject: Subject, translator: Any) -> Any:
    """A translator, saved and loaded."""
    targets = translator.families if isinstance(translator, LearnedTranslator) else (translator.target,)
    source, target, *further = (_described(subject, adapter) for adapter in (translator.source, *targets))
    with TemporaryDirectory() as folder:
        place = Path(folder) / "translator"
        save_translator(place, translator, subject.name, source, target, further)
        return load_translator(place, subject.registry)


def _described(subject: Subject, adapter: BlockAdapter) -> ComponentConfig:
    """How an adapter is made, as a config says it."""
    name = next(entry.name for entry in neighbours(subject) if entry.resolve() is type(adapter))
    return ComponentConfig.model_validate({"name": name, **adapter.options.model_dump(mode="json")})


@check("translator", when=is_learned)
def sources_that_never_vary_do_no_harm(subject: Subject) -> None:
    """Started on constant blocks, or on one alone, it writes finite values."""
    for pair in some_pairs(subject):
        translator, source = pair.translator, pair.translator.source
        constant = {name: torch.ones_like(t) for name, t in pair.hosts.source.items()}
        still = replace(pair, hosts=replace(pair.hosts, source=constant))
        for what, given, index in (("constant blocks", still, (0, 1, 2)), ("one block", pair, (0,))):
            fresh, around = built(subject, source, translator.target).translator, surroundings(given, index)
            assert around.hosts is not None
            fresh.start(source.read(copied(around.hosts.source)), around)
            written = translated(replace(given, translator=fresh), index)
            wrong = [name for name, tensor in written.items() if not tensor.isfinite().all()]
            expect(not wrong, f"{pair}: finite values, started on {what}", f"others in {named(wrong)}")
