"""Checks of objectives."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from paramtrans.api.adapter import BlockAdapter
from paramtrans.api.objective import Batch
from paramtrans.api.stacking import Params
from paramtrans.testing.check import Subject, check, copied, differing, drawing, expect, named
from paramtrans.testing.samples import (
    MODELS,
    batch,
    hosts,
    in_own_memory,
    partners,
    randomised,
    runner,
    source_of,
    untouched,
)


def _lost(subject: Subject, target: BlockAdapter, predicted: Params, given: Batch | None = None) -> Tensor:
    """The objective's value for predicted blocks on hosts of their own."""
    source = source_of(subject)
    given = given or batch(hosts(source, target))
    with drawing(0):
        own_batch = replace(given, hosts=in_own_memory(given.hosts))
        loss: Tensor = subject.create(runner(source, target))(predicted, own_batch)
    return loss


@check("objective")
def is_a_finite_scalar(subject: Subject) -> None:
    """The loss of blocks far from any solution is one finite number above zero."""
    for target in partners(subject):
        loss = _lost(subject, target, randomised(target, MODELS, 77))
        expect(loss.shape == (), "a scalar", f"shape {list(loss.shape)}")
        expect(bool(loss.isfinite()) and float(loss) > 0, "a finite number above zero", float(loss))


@check("objective")
def gradients_reach_every_prediction(subject: Subject) -> None:
    """Its gradient is finite and not zero in every tensor of every predicted block, running statistics too."""
    for target in partners(subject):
        predicted = {n: t.requires_grad_() for n, t in randomised(target, MODELS, 77).items()}
        loss = _lost(subject, target, predicted)
        if loss.requires_grad:
            loss.sum().backward()
        for name, tensor in predicted.items():
            gradient = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
            where = f"{name} of {type(target).__name__}"
            expect(bool(gradient.isfinite().all()), f"a finite gradient in {where}", "one that is not")
            expect(float(gradient.flatten(1).abs().sum(1).min()) > 0, f"a gradient in {where}", "none in some model")


@check("objective")
def comparing_leaves_no_trace(subject: Subject) -> None:
    """Hosts and predictions stay as they were."""
    source = source_of(subject)
    before, predicted = hosts(source, source), randomised(source, MODELS, 77)
    given = in_own_memory(before)
    entering = {name: tensor.requires_grad_() for name, tensor in copied(predicted).items()}
    with drawing(0):
        subject.create(runner(source, source))({n: t.clone() for n, t in entering.items()}, batch(given))
    untouched(given, before)
    kept = copied(predicted)
    with drawing(0), torch.no_grad():
        subject.create(runner(source, source))(kept, batch(in_own_memory(before)))
    expect(not differing(kept, predicted), "the prediction untouched", f"{named(differing(kept, predicted))} changed")


@check("objective")
def same_input_same_loss(subject: Subject) -> None:
    """The loss depends on nothing but the prediction and the batch."""
    source = source_of(subject)
    values = []
    for draws in (1, 2):
        with drawing(0):
            objective = subject.create(runner(source, source))
        with drawing(draws):
            values.append(float(objective(randomised(source, MODELS, 77), batch(hosts(source, source))).sum()))
    expect(values[0] == values[1], "the same loss twice", values)


@check("objective")
def asks_for_what_it_uses(subject: Subject) -> None:
    """It does without trained targets unless `needs_targets`, and without inputs unless `examples`."""
    source, target = source_of(subject), partners(subject)[-1]
    full = batch(hosts(source, target))
    objective = subject.create(runner(source, target))
    given = full
    if not objective.needs_targets:
        given = replace(given, hosts=replace(full.hosts, target=None), target=None)
    if not objective.examples:
        given = replace(given, inputs=None, labels=None)
    loss = _lost(subject, target, randomised(target, MODELS, 77), given)
    expect(bool(loss.isfinite().all()), "a loss from what it asks for", loss)
