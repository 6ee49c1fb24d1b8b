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
        """The operation that labels are carried through, as the reason for what it pins."""
        self.pinned: list[tuple[Tensor, str]] = []
        """Atoms that can never go, each with the reason."""

    def fresh(self, *shape: int) -> Tensor:
        """New atoms of this shape."""
        total = int(torch.Size(shape).numel())
        atoms = torch.arange(self.count, self.count + total).view(*shape)
        self.count += total
        return atoms

    def equate(self, label: Tensor, equal_label: Tensor) -> None:
        """Elements of two labels that broadcast against each other are equal.

        Args:
            label: Atoms.
            equal_label: Atoms that go with these.
        """
        left, right = torch.broadcast_tensors(label, equal_label)
        self.equal.append((left.reshape(-1), right.reshape(-1)))

    def pin(self, label: Tensor) -> None:
        """No atom of a label can go."""
        self.pinned.append((label.reshape(-1)[:1], self.reason))
        self.equate(label.unique(), torch.tensor(PINNED))

    def tie(self, label: Label, axes: Iterable[int]) -> None:
        """Atoms along some axes of a label go together: what is computed over these axes depends on all of them."""
        for axis in axes:
            if label.shape[axis] > 1:
                self.equate(label, label.narrow(axis, 0, 1))

    def rows(self, label: Label, axes: Collection[int]) -> Label:
        """Atoms for the rows of a label along some axes; each covers all atoms of its row, and equal rows share one.

        Args:
            label: Atoms.
            axes: That the rows are numbered by.

        Returns:
            A label over these axes.
        """
        passed = [axis for axis in range(label.ndim) if axis not in axes]
        sizes = [size if axis in axes else 1 for axis, size in enumerate(label.shape)]
        covered = label.permute(*axes, *passed).reshape(torch.Size(sizes).numel(), -1)
        distinct, inverse = covered.unique(dim=0, return_inverse=True)
        parents = self.fresh(len(distinct))
        self.covers.append(Cover(parents, distinct))
        return squeezed(parents[inverse].view(sizes))

    def cover(self, parents: Label, children: Label) -> None:
        """Each parent goes if and only if all children beside it do.

        Args:
            parents: Runs over some of the axes of `children`.
            children: Atoms.
        """
        axes = axes_of(parents)
        passed = [axis for axis in range(children.ndim) if axis not in axes]
        order = [*axes, *passed]
        expanded = children.expand(torch.broadcast_shapes(children.shape, parents.shape)).permute(order)
        count = parents.numel()
        self.covers.append(Cover(parents.permute(order).reshape(count), expanded.reshape(count, -1)))


def axes_of(label: Label) -> tuple[int, ...]:
    """The axes that a label runs over."""
    return tuple(axis for axis, size in enumerate(label.shape) if size > 1)


def squeezed(label: Tensor) -> Label:
    """The label without the axes along which it does not change."""
    for axis, size in enumerate(label.shape):
        if size > 1:
            slice_of_axis = label.narrow(axis, 0, 1)
            if bool((label == slice_of_axis).all()):
                label = slice_of_axis
    return label.clone()  # a view would keep the whole label


def disjoint(facts: Facts, labels: Sequence[Label]) -> list[Label]:
    """Labels that run over different axes: where several share some, each combination gets an atom of its own."""
    result: list[Label] = []
    for label in labels:
        if not axes_of(label):
            continue
        for overlapping in [placed for placed in result if set(axes_of(placed)) & set(axes_of(label))]:
            result = [placed for placed in result if placed is not overlapping]
            label = _combined(facts, label, overlapping)
        result.append(label)
    return result


def _combined(facts: Facts, label: Label, overlapping: Label) -> Label:
    """One label over all axes of two that share some."""
    axes, other_axes = axes_of(label), axes_of(overlapping)
    if axes == other_axes:
        return _crossed(facts, label, overlapping)
    if set(axes) >= set(other_axes):
        facts.cover(overlapping, label)
        return label
    if set(other_axes) >= set(axes):
        facts.cover(label, overlapping)
        return overlapping
    pairs = facts.fresh(*torch.broadcast_shapes(label.shape, overlapping.shape))
    facts.cover(label, pairs)
    facts.cover(overlapping, pairs)
    return pairs


def _crossed(facts: Facts, label: Label, other: Label) -> Label:
    """One label of two that run over the same axes, such as heads and dimensions once an axis holds both: each
    combination gets an atom of its own. Labels that say the same are equal, and so are those that make no box."""
    combinations, inverse = torch.stack([label.flatten(), other.flatten()]).unique(dim=1, return_inverse=True)
    rows, columns = (combination.unique(return_inverse=True) for combination in combinations)
    count = combinations.shape[1]
    if min(len(rows[0]), len(columns[0])) == 1 or count != len(rows[0]) * len(columns[0]):
        facts.equate(label, other)
        return label
    box = torch.empty(len(rows[0]), len(columns[0]), dtype=torch.long)
    atoms = facts.fresh(count)
    box[rows[1], columns[1]] = atoms
    facts.covers += [Cover(rows[0], box), Cover(columns[0], box.mT.contiguous())]
    return atoms[inverse].view(label.shape)


def align(facts: Facts, values: Sequence[tuple[Sequence[int], Sequence[Label]]]) -> list[Label]:
    """Labels of what is computed element by element from values that broadcast against each other.

    A label meets nothing where another value is of size 1. Where that is of full size and has no label, its sizes are
    decided by something that cannot be changed.

    Args:
        facts: Are added to.
        values: The shape of each value, and its labels.
    """
    ndim = max(len(shape) for shape, _ in values)
    shaped = [
        ([1] * (ndim - len(shape)) + list(shape), [_raised(label, ndim) for label in labels])
        for shape, labels in values
    ]
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
    labelled = {axis for present in labels for axis in axes_of(present)}
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
    result: list[Label] = []
    for present in labels:
        shared = set(axes_of(present))
        if not shared & axes:
            result.append(present)
        elif shared == axes:
            facts.equate(present, label)
            label = present
        elif shared > axes:
            facts.cover(label, present)
            label, axes = present, shared
        elif shared < axes:
            facts.cover(present, label)
        else:  # both run over an axis and each over another one beside it: what they share is a row of both
            rows = facts.rows(label, sorted(shared & axes))
            facts.cover(rows, present)
            result.append(present)
    if not any(present is label for present in result):
        result.append(label)
    return result


def summed_labels(facts: Facts, labels: Sequence[Label], axes: Iterable[int]) -> list[Label]:
    """Labels of a sum over some axes, which stay with size 1; rows of labels that vanish get atoms of their own.

    Args:
        facts: Are added to.
        labels: Of the value that is summed.
        axes: That are summed over.
    """
    vanishing, result = set(axes), list[Label]()
    for label in labels:
        label_axes = set(axes_of(label))
        if not label_axes & vanishing:
            result.append(label)
        elif label_axes - vanishing:
            result.append(facts.rows(label, sorted(label_axes - vanishing)))
    return disjoint_rows(facts, result)


def disjoint_rows(facts: Facts, labels: Sequence[Label]) -> list[Label]:
    """Labels that run over different axes, where sums left several over the same ones."""
    result: list[Label] = []
    for label in labels:
        result = _joined(facts, result, label)
    return result
