"""Labels: which unit each element of a value belongs to, and what follows for units from how values are combined.

An *atom* is one index of one axis of one tensor of a network, or of one axis that values are split into on the way. A
*label* is an integer tensor of atoms that broadcasts against a value: size 1 along the axes that it does not run over.
A value has any number of labels, which run over different axes. All rules come down to two facts about atoms:

- *equal*: the one goes if and only if the other does;
- *cover*: a parent goes if and only if all of its children go (a head and its queries). The children of one parent are
  a *cell*. Cells of one cover keep as many children each, or go whole; a child that stands in two cells which cross
  (its head, and the rotary frequency that it shares with other heads) goes with one of them alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Label = Tensor
"""Atoms, int64, of as many axes as the value that it belongs to."""

PINNED = 0
"""The atom that can never go: an input, an output, or a size that no parameter decides."""


@dataclass(frozen=True)
class Cover:
    """Parents `[n]`, and the children of each, `[n, m]`."""

    parents: Tensor
    children: Tensor


class Facts:
    """What is known of the atoms of one network."""

    def __init__(self) -> None:
        self.count = 1
        self.equal: list[tuple[Tensor, Tensor]] = []
        self.covers: list[Cover] = []
        self.reason = ""
        """What is being followed, for what is pinned by it."""
        self.pinned: list[tuple[Tensor, str]] = []
        """Atoms that can never go, each with what pinned them."""

    def fresh(self, *shape: int) -> Tensor:
        """New atoms."""
        total = int(torch.Size(shape).numel())
        made = torch.arange(self.count, self.count + total).view(*shape)
        self.count += total
        return made

    def equate(self, one: Tensor, other: Tensor) -> None:
        """Elements of two labels that broadcast against each other are equal."""
        first, second = torch.broadcast_tensors(one, other)
        self.equal.append((first.reshape(-1), second.reshape(-1)))

    def pin(self, label: Tensor) -> None:
        """None of these can go."""
        self.pinned.append((label.reshape(-1)[:1], self.reason))
        self.equate(label.unique(), torch.tensor(PINNED))

    def tie(self, label: Label, axes: Iterable[int]) -> None:
        """What runs along these axes goes together: something is computed over them that depends on all of it."""
        for axis in axes:
            if label.shape[axis] > 1:
                self.equate(label, label.narrow(axis, 0, 1))

    def rows(self, label: Label, axes: Collection[int]) -> Label:
        """Atoms of what runs over some axes of a label, each covering all that it runs past; rows alike share one."""
        others = [axis for axis in range(label.ndim) if axis not in axes]
        sizes = [size if axis in axes else 1 for axis, size in enumerate(label.shape)]
        past = label.permute(*axes, *others).reshape(torch.Size(sizes).numel(), -1)
        alike, which = past.unique(dim=0, return_inverse=True)
        made = self.fresh(len(alike))
        self.covers.append(Cover(made, alike))
        return squeezed(made[which].view(sizes))

    def cover(self, parents: Label, children: Label) -> None:
        """`parents` runs over some of the axes of `children`: each goes if and only if all that it runs past do."""
        axes = axes_of(parents)
        others = [axis for axis in range(children.ndim) if axis not in axes]
        order = [*axes, *others]
        full = children.expand(torch.broadcast_shapes(children.shape, parents.shape)).permute(order)
        count = parents.numel()
        self.covers.append(Cover(parents.permute(order).reshape(count), full.reshape(count, -1)))


def axes_of(label: Label) -> tuple[int, ...]:
    """The axes that a label runs over."""
    return tuple(axis for axis, size in enumerate(label.shape) if size > 1)


def squeezed(label: Tensor) -> Label:
    """The label without the axes along which it does not change."""
    for axis, size in enumerate(label.shape):
        if size > 1:
            first = label.narrow(axis, 0, 1)
            if bool((label == first).all()):
                label = first
    return label.contiguous()


def disjoint(facts: Facts, labels: Sequence[Label]) -> list[Label]:
    """Labels that run over different axes: of those that share some, pairs get atoms of their own."""
    kept: list[Label] = []
    for label in labels:
        if not axes_of(label):
            continue
        for other in [one for one in kept if set(axes_of(one)) & set(axes_of(label))]:
            kept = [one for one in kept if one is not other]
            label = _combined(facts, label, other)
        kept.append(label)
    return kept


def _combined(facts: Facts, one: Label, other: Label) -> Label:
    """One label over all axes of two that share some."""
    first, second = axes_of(one), axes_of(other)
    if first == second:
        facts.equate(one, other)
        return one
    if set(first) >= set(second):
        facts.cover(other, one)
        return one
    if set(second) >= set(first):
        facts.cover(one, other)
        return other
    pairs = facts.fresh(*torch.broadcast_shapes(one.shape, other.shape))
    facts.cover(one, pairs)
    facts.cover(other, pairs)
    return pairs


def align(facts: Facts, values: Sequence[tuple[Sequence[int], Sequence[Label]]]) -> list[Label]:
    """Labels of what is computed element by element from values that broadcast against each other.

    Each value is its shape with its labels. A label meets nothing where another value is of size 1; where that is of
    full size and has no label, its sizes are decided by something that cannot be changed.
    """
    ndim = max(len(shape) for shape, _ in values)
    shaped = [([1] * (ndim - len(shape)) + list(shape), [_raised(one, ndim) for one in own]) for shape, own in values]
    result: list[Label] = []
    for shape, labels in shaped:
        for label in labels:
            for other_shape, other_labels in shaped:
                if other_shape is not shape:
                    _check_sizes(facts, label, other_shape, other_labels)
    for _, labels in shaped:
        for label in labels:
            result = _joined(facts, result, label)
    return result


def _raised(label: Label, ndim: int) -> Label:
    return label.view(*[1] * (ndim - label.ndim), *label.shape)


def _check_sizes(facts: Facts, label: Label, shape: Sequence[int], labels: Sequence[Label]) -> None:
    """Sizes of axes over which another value runs without a label stay: what a label runs past beside them may go."""
    labelled = {axis for other in labels for axis in axes_of(other)}
    fixed = [axis for axis in axes_of(label) if shape[axis] > 1 and axis not in labelled]
    if len(fixed) == len(axes_of(label)):
        facts.pin(label)
    else:
        facts.tie(label, fixed)


def _joined(facts: Facts, labels: list[Label], label: Label) -> list[Label]:
    """Labels of a product with one of another value put among them."""
    axes = set(axes_of(label))
    if not axes:
        return labels
    kept: list[Label] = []
    for other in labels:
        shared = set(axes_of(other))
        if not shared & axes:
            kept.append(other)
        elif shared == axes:
            facts.equate(other, label)
            label = other
        elif shared > axes:
            facts.cover(label, other)
            label, axes = other, shared
        elif shared < axes:
            facts.cover(other, label)
        else:  # both run over an axis and each over another one beside it: what they share is a row of both
            rows = facts.rows(label, sorted(shared & axes))
            facts.cover(rows, other)
            kept.append(other)
    if not any(one is label for one in kept):
        kept.append(label)
    return kept


def summed(facts: Facts, labels: Sequence[Label], axes: Iterable[int]) -> list[Label]:
    """Labels of what is summed over some axes, which stay with size 1; rows of what vanishes get atoms of their own."""
    gone, result = set(axes), list[Label]()
    for label in labels:
        run = set(axes_of(label))
        if not run & gone:
            result.append(label)
        elif run - gone:
            result.append(facts.rows(label, sorted(run - gone)))
    return disjoint_rows(facts, result)


def disjoint_rows(facts: Facts, labels: Sequence[Label]) -> list[Label]:
    """Labels joined where sums left several over the same axes."""
    result: list[Label] = []
    for label in labels:
        result = _joined(facts, result, label)
    return result
