"""Units of a network, and groups of units that are alike: what may be left out together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from scipy.sparse import coo_matrix, csr_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from paramtrans.networks.graph.labels import PINNED
from paramtrans.networks.graph.propagate import Labelled


@dataclass(frozen=True)
class Axis:
    """Indices of one axis of one tensor that belong to the units of a group."""

    tensor: str
    axis: int
    indices: Tensor
    """`[units, width]`: those of each unit."""


@dataclass(frozen=True, eq=False)
class UnitGroup:
    """Units that stand in the same axes of the same tensors, any number of which may be left out."""

    axes: tuple[Axis, ...]
    classes: tuple[frozenset[int], ...]
    """For each unit the classes of atoms that go with it."""
    cells: Tensor | None = None
    """`[units]`: where as many units have to stay in each cell, the cell of each."""

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def tensors(self) -> tuple[str, ...]:
        """The tensors that units stand in, each once."""
        return tuple(dict.fromkeys(axis.tensor for axis in self.axes))

    def choose(self, scores: Tensor, count: int) -> Tensor:
        """The units of highest score, equally many of each cell.

        Args:
            scores: `[units]`.
            count: How many units stay.

        Returns:
            Numbers of units, `[count]`, in order.
        """
        if self.cells is None:
            return scores.argsort(descending=True, stable=True)[:count].sort().values
        cells = int(self.cells.max()) + 1
        cell_units = [(self.cells == cell).nonzero()[:, 0] for cell in range(cells)]
        return (
            torch.cat(
                [
                    in_cell[scores[in_cell].argsort(descending=True, stable=True)[: count // cells]]
                    for in_cell in cell_units
                ]
            )
            .sort()
            .values
        )

    def allowed(self, count: float, multiple_of: int = 1) -> int:
        """The largest number of units up to `count` that may stay: at least one, or one of each cell.

        Args:
            count: How many units should stay.
            multiple_of: The number has to be a multiple of this.
        """
        step = 1 if self.cells is None else int(self.cells.max()) + 1
        step = int(np.lcm(step, multiple_of)) if multiple_of > 1 else step
        fewest = 1 if self.cells is None else int(self.cells.max()) + 1
        if step > len(self):
            return len(self)
        return min(len(self), max(fewest, step, int(count + 1e-9) // step * step))


class Classes:
    """Atoms that are equal, as one class each; what goes if something goes."""

    def __init__(self, labelled: Labelled) -> None:
        facts = labelled.facts
        covers = [(cover.parents.numpy(), cover.children.numpy()) for cover in facts.covers]
        pairs = [(atoms.numpy(), equal_atoms.numpy()) for atoms, equal_atoms in facts.equal]
        # A parent of one child is that child.
        pairs += [(parents, children[:, 0]) for parents, children in covers if children.shape[1] == 1]
        left, right = (np.concatenate([p[i] for p in pairs] or [np.zeros(0, int)]) for i in range(2))
        graph = coo_matrix((np.ones(len(left), bool), (left, right)), (facts.count, facts.count))
        self.of: np.ndarray = connected_components(graph, directed=False)[1]
        self.pinned = int(self.of[PINNED])
        self.cells: dict[int, list[frozenset[int]]] = defaultdict(list)
        """For each parent the sets of children that it covers."""
        self.parents: dict[int, list[tuple[int, frozenset[int]]]] = defaultdict(list)
        """For each child the cells that it stands in, each with its parent."""
        self.partitions: list[np.ndarray] = []
        """For each cover its distinct cells: the classes of the children of each, `[cells, children]`."""
        self._crossing: dict[int, frozenset[int] | None] = {}
        """Parents of a child that stands in cells that cross; None for others."""
        known_cells: set[tuple[int, frozenset[int]]] = set()
        for parents, children in covers:
            rows = np.sort(self.of[children], 1)
            for parent, row in zip(self.of[parents].tolist(), rows.tolist(), strict=True):
                cell = frozenset(row)
                if cell == {parent} or (parent, cell) in known_cells:
                    continue
                known_cells.add((parent, cell))
                self.cells[parent].append(cell)
                for child in cell:
                    self.parents[child].append((parent, cell))
            if len(distinct := np.unique(rows, axis=0)) > 1:
                self.partitions.append(distinct)

    def closure(self, seed: int) -> frozenset[int] | None:
        """All classes that go with one.

        Args:
            seed: The class.

        Returns:
            None where some class of them can never go, or not without others.
        """
        going, open_classes = {seed}, [seed]
        while open_classes:
            current = open_classes.pop()
            if current == self.pinned:
                return None
            neighbours = [child for cell in self.cells.get(current, ()) for child in cell]
            neighbours += [parent for parent, cell in self.parents.get(current, ()) if cell <= going]
            for neighbour in neighbours:
                if neighbour not in going:
                    going.add(neighbour)
                    open_classes.append(neighbour)
        return frozenset(going) if all(self._may_go(neighbour, going) for neighbour in going) else None

    def _may_go(self, child: int, going: set[int]) -> bool:
        """Whether a child leaves no crossing cells half full: it goes with one of them, or stands in nested ones."""
        if child not in self._crossing:
            cells = [(parent, cell) for parent, cell in self.parents.get(child, ()) if len(cell) > 1]
            cross = any(not (a <= b or b <= a) for (_, a), (_, b) in combinations(cells, 2))
            self._crossing[child] = frozenset(parent for parent, _ in cells) if cross else None
        parents = self._crossing[child]
        return parents is None or not parents.isdisjoint(going)


def summed_classes(labelled: Labelled, classes: Classes) -> set[int]:
    """Classes of units that something sums over; others are not read at all, such as positions behind the examples'.

    Args:
        labelled: A program.
        classes: Of its units.
    """
    labels = (contraction.label.numpy() for contraction in labelled.contractions)
    return {number for label in labels for number in classes.of[label].ravel().tolist()}


def find_units(labelled: Labelled) -> list[UnitGroup]:
    """All groups of two units or more, in the order of the tensors; some share classes (heads and their queries)."""
    classes = Classes(labelled)
    members = _members(labelled, classes)
    known_units: set[frozenset[int]] = set()
    by_axes: dict[tuple[tuple[str, int, int], ...], list[tuple[frozenset[int], dict[tuple[str, int], list[int]]]]]
    by_axes = defaultdict(list)
    for seed in [*classes.cells, *members]:
        unit = classes.closure(seed)
        if unit is None or unit in known_units:
            continue
        known_units.add(unit)
        indices: dict[tuple[str, int], list[int]] = defaultdict(list)
        for member in unit:
            for tensor, axis, index in members.get(member, ()):
                indices[tensor, axis].append(index)
        unit_axes = tuple(sorted((tensor, axis, len(own_indices)) for (tensor, axis), own_indices in indices.items()))
        if unit_axes:
            by_axes[unit_axes].append((unit, indices))
    order = {name: number for number, name in enumerate(labelled.axes)}
    groups = [
        group
        for unit_axes, units in by_axes.items()
        if len(units) > 1 and _partial(labelled, unit_axes, len(units))
        for group in _groups(classes, unit_axes, units)
    ]
    return sorted(groups, key=lambda group: min(order[name] for name in group.tensors))


def _partial(labelled: Labelled, unit_axes: Sequence[tuple[str, int, int]], count: int) -> bool:
    return all(len(labelled.axes[tensor][axis]) >= count * width for tensor, axis, width in unit_axes)


def _members(labelled: Labelled, classes: Classes) -> dict[int, list[tuple[str, int, int]]]:
    """For each class its atoms in tensors: tensor, axis, index."""
    members: dict[int, list[tuple[str, int, int]]] = defaultdict(list)
    for tensor, axes in labelled.axes.items():
        for axis, atoms in enumerate(axes):
            for index, class_of in enumerate(classes.of[atoms.numpy()].tolist()):
                if class_of != classes.pinned:
                    members[class_of].append((tensor, axis, index))
    return members


def _groups(
    classes: Classes,
    unit_axes: Sequence[tuple[str, int, int]],
    units: list[tuple[frozenset[int], dict[tuple[str, int], list[int]]]],
) -> Iterator[UnitGroup]:
    """One group of these units, or none where their number is tied to what is no unit of them."""
    units = sorted(units, key=lambda unit: min(min(indices_of) for indices_of in unit[1].values()))
    cells = _cells(classes, [unit for unit, _ in units])
    if cells is False:
        return
    axes = tuple(
        Axis(tensor, axis, torch.tensor([sorted(indices[tensor, axis]) for _, indices in units]))
        for tensor, axis, _ in unit_axes
    )
    yield UnitGroup(axes, tuple(unit for unit, _ in units), cells if isinstance(cells, Tensor) else None)


def _cells(classes: Classes, units: list[frozenset[int]]) -> Tensor | bool | None:
    """The cell of each unit where cells must stay equally full; None without such cells; False where they cannot."""
    cells: Tensor | None = None
    of_unit = _incidence([np.fromiter(unit, int) for unit in units], len(classes.of))
    in_units = of_unit.sum(0) > 0
    for partition in classes.partitions:
        if not in_units[partition].any():
            continue
        counts = torch.from_numpy((of_unit @ _incidence(partition, len(classes.of)).T).toarray())
        width = partition.shape[1]
        partly = (counts > 0) & (counts < width)
        if not partly.any() or bool((counts == counts[:, :1]).all()):
            continue  # whole cells go, or equally much of each
        once = bool(((counts > 0).sum(1) == 1).all()) and len({*counts.sum(1).tolist()}) == 1
        if not once or bool((counts.sum(0) != counts.sum(0)[0]).any()):
            return False
        cell_of = counts.argmax(1)
        if cells is not None and not torch.equal(cells, cell_of):
            return False
        cells = cell_of
    return cells


def _incidence(sets: Sequence[np.ndarray] | np.ndarray, count: int) -> csr_array:
    """How often each of `count` classes is in each of some sets: `[sets, count]`."""
    rows = np.repeat(np.arange(len(sets)), [len(members) for members in sets])
    columns = np.concatenate(list(sets))
    return csr_array((np.ones(len(rows), np.int64), (rows, columns)), (len(sets), count))
