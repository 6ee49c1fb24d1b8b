"""Pieces of a smaller network, from the layers that write a group of units to those that read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node
from torch.utils._pytree import tree_map

from paramtrans.api.units import Entered, UnitPiece
from paramtrans.errors import SpecMismatch
from paramtrans.networks.forward.activations import Inputs, Spool, arguments, per_example
from paramtrans.networks.forward.examples import Examples
from paramtrans.networks.graph.capture import Arguments, Program, capture
from paramtrans.networks.graph.evaluate import function, placed, values, without_changes
from paramtrans.networks.graph.groups import Analysis, NamedGroup
from paramtrans.networks.graph.labels import axes_of
from paramtrans.networks.graph.narrow import Removal
from paramtrans.networks.graph.operators import Value, name_of
from paramtrans.networks.graph.proof import named_tensors
from paramtrans.networks.graph.summed import summed

DIRECTLY = {"batch_norm", "dropout", "clone"}
"""Operations on what a layer gives, behind which it is matched."""
ACTIVATIONS = {"relu", "gelu", "silu", "hardswish", "hardtanh", "relu6", "leaky_relu", "elu", "tanh", "sigmoid", "mish"}
"""The last of these."""


class Pieces:
    """Both networks as programs that take batches of one size, and the pieces of the smaller one."""

    def __init__(self, analysis: Analysis, removal: Removal, small: nn.Module, examples: Examples, size: int) -> None:
        """Raises `SpecMismatch` where `torch.export` does not follow the smaller network as it does the other."""
        self.analysis, self.removal, self.small = analysis, removal, small
        self.batches = list(_batches(examples, size))
        held_out = list(_batches(examples, size, aside=True))
        self.aside = held_out
        first = self.batches[0]
        self.programs = tuple(capture(network, first) for network in (analysis.network, small))
        self.graphs = tuple(without_changes(program) for program in self.programs)
        kinds = [[(node.op, node.name, str(node.target)) for node in graph.nodes] for graph in self.graphs]
        if kinds[0] != kinds[1]:
            raise SpecMismatch("the smaller network goes through other operations than the untouched one")

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers of the smaller network, as they are."""
        return named_tensors(self.small)

    def piece(self, group: NamedGroup, seed: int) -> UnitPiece:
        """The piece of a group.

        Raises:
            SpecMismatch: it is not known where all that its units are summed over goes.
        """
        program, graph = self.programs[1], self.graphs[1]
        trained = {name for name, _ in self.small.named_parameters(remove_duplicate=False)}
        ends = self._ends(group, graph)
        names = trained & ({*group.units.tensors} | {name for end in ends for name in end.tensors})
        cut = _cut(program, graph, names, [end.node for end in ends])
        given = placed(program, tensors := self.tensors(), self.batches[0])
        fixed = [node for node in cut.entering if node.op == "placeholder" and node.name not in program.inputs]
        entering = [node for node in cut.entering if node not in fixed]
        run = function(program, cut.nodes, [*cut.params.values(), *fixed, *entering], [end.node for end in ends])
        constants = [given[node.name] for node in fixed]

        def compute(own: Mapping[str, Tensor], entered: Entered) -> tuple[Tensor, ...]:
            return run(*(own[name] for name in cut.params), *constants, *entered)  # type: ignore[no-any-return]

        params = {name: tensors[name].detach() for name in cut.params}
        batches = _Batches(self, [node.name for node in entering], [end.node.name for end in ends])
        return UnitPiece(group.path, params, compute, batches, seed)

    def errors(self, groups: Sequence[NamedGroup]) -> dict[NamedGroup, float]:
        """Squared change of what leaves the layers that read each group, relative to its variance, on examples that
        were kept aside; nothing where there are none."""
        ends = {group: [end.node.name for end in self._ends(group, self.graphs[1])] for group in groups}
        names = {name for own in ends.values() for name in own}
        sums = {name: _Sums() for name in names}
        for batch in self.aside:
            found = values(self.programs[1], self.graphs[1], self.tensors(), batch, names)
            for name, wanted in self.wanted(batch, sorted(names)).items():
                sums[name].add(found[name], wanted)
        return {g: max(sums[name].error() for name in own) for g, own in ends.items()} if self.aside else {}

    def wanted(self, batch: Arguments, names: Sequence[str]) -> dict[str, Tensor]:
        """What nodes give in the untouched network, as far as the smaller one has it."""
        before = values(self.programs[0], self.graphs[0], named_tensors(self.analysis.network), batch, names)
        return {name: self._kept(name, before[name]) for name in names}

    def _kept(self, name: str, value: Tensor) -> Tensor:
        known = self.analysis.labelled.values.get(name)
        for label in known.labels if isinstance(known, Value) else ():
            stays = self.removal.stays(label)
            if not bool(stays.all()):
                [axis] = axes_of(label)
                value = value.index_select(axis, stays.flatten().nonzero()[:, 0].to(value.device))
        return value

    def _ends(self, group: NamedGroup, graph: Graph) -> list[_End]:
        names = self.programs[1].names
        found = []
        for node in graph.nodes:
            axis = summed(node, names)
            if axis is not None and any((own.tensor, own.axis) == axis for own in group.units.axes):
                found.append(self._followed(node))
        units = frozenset[int]().union(*group.units.classes)
        classes = self.analysis.classes.of
        layers = {one.node for one in self.analysis.labelled.contractions if one.weight is not None}
        for one in self.analysis.labelled.contractions:
            if one.node not in layers and not units.isdisjoint(classes[one.label.numpy()].ravel().tolist()):
                result = self.analysis.labelled.values.get(one.node.name)
                labels = result.labels if isinstance(result, Value) else []
                if not any(not units.isdisjoint(classes[own.numpy()].ravel().tolist()) for own in labels):
                    raise SpecMismatch(f"its units are summed over at {one.node.name}, which is no layer")
        if not found:
            raise SpecMismatch("no layer reads its units")
        return found

    def _followed(self, node: Node) -> _End:
        """Behind the normalisation, the sum and the activation that directly follow a layer."""
        names, tensors, added = self.programs[1].names, _named(node, self.programs[1].names), False
        while len(node.users) == 1:
            [user] = node.users
            joins = name_of(user) in ("add", "sub") and not added and all(isinstance(a, Node) for a in user.args[:2])
            if not (name_of(user) in DIRECTLY | ACTIVATIONS or joins) or not self._selectable(user):
                break
            added |= joins
            node = user
            tensors |= _named(node, names)
            if name_of(node) in ACTIVATIONS:
                break
        return _End(node, frozenset(tensors))

    def _selectable(self, node: Node) -> bool:
        """Whether what stays of a value is the same along all of each of its axes."""
        known = self.analysis.labelled.values.get(node.name)
        labels = known.labels if isinstance(known, Value) else []
        return all(len(axes_of(label)) == 1 or bool(self.removal.stays(label).all()) for label in labels)


@dataclass(frozen=True)
class _End:
    """Where a piece ends, and the tensors that are read on the way from the layer to there."""

    node: Node
    tensors: frozenset[str]


def _named(node: Node, names: Mapping[str, str]) -> set[str]:
    return {names[one.name] for one in node.all_input_nodes if one.name in names}


@dataclass(frozen=True)
class _Cut:
    """A piece of a graph."""

    params: Mapping[str, Node]
    nodes: list[Node]
    entering: list[Node]


def _cut(program: Program, graph: Graph, names: set[str], ends: Sequence[Node]) -> _Cut:
    """All that lies between parameters and the ends; those that also matter elsewhere are left out."""
    before: set[Node] = set()
    todo = list(ends)
    while todo:
        node = todo.pop()
        if node not in before:
            before.add(node)
            todo += node.all_input_nodes
    params = {program.names[node.name]: node for node in graph.nodes if program.names.get(node.name) in names}
    params = {name: node for name, node in params.items() if node.users and before.issuperset(node.users)}
    reached, nodes, entering = {*params.values()}, list[Node](), dict[Node, None]()
    for node in graph.nodes:
        if node.op == "call_function" and node in before and not reached.isdisjoint(node.all_input_nodes):
            reached.add(node)
            nodes.append(node)
            entering |= dict.fromkeys(one for one in node.all_input_nodes if one not in reached)
    return _Cut(params, nodes, list(entering))


class _Batches:
    """What enters a piece and what should leave it, recorded when it is first gone through."""

    def __init__(self, pieces: Pieces, entering: list[str], wanted: list[str]) -> None:
        self.pieces, self.entering, self.wanted = pieces, entering, wanted
        self._recorded: tuple[list[Spool], list[Spool]] | None = None

    def __iter__(self) -> Iterator[tuple[Entered, tuple[Tensor, ...]]]:
        if self._recorded is None:
            self._recorded = self._record()
        given, left = self._recorded
        yield from zip(zip(*given, strict=True), zip(*left, strict=True), strict=True)

    def _record(self) -> tuple[list[Spool], list[Spool]]:
        given, left = [Spool() for _ in self.entering], [Spool() for _ in self.wanted]
        pieces = self.pieces
        program, graph, tensors = pieces.programs[1], pieces.graphs[1], pieces.tensors()
        made = {node.name for node in graph.nodes if node.op != "placeholder"}
        for batch in pieces.batches:
            known = placed(program, tensors, batch)
            known |= values(program, graph, tensors, batch, [name for name in self.entering if name in made])
            for spool, name in zip(given, self.entering, strict=True):
                spool.add(known[name].detach())
            wanted = pieces.wanted(batch, self.wanted)
            for spool, name in zip(left, self.wanted, strict=True):
                spool.add(wanted[name])
        return given, left


class _Sums:
    """Sums that a relative error is made of."""

    def __init__(self) -> None:
        self.count, self.total, self.square, self.squared = 0, 0.0, 0.0, 0.0

    def add(self, found: Tensor, wanted: Tensor) -> None:
        wanted = wanted.double()
        self.squared += float((found.double() - wanted).square().sum())
        self.count, self.total = self.count + wanted.numel(), self.total + float(wanted.sum())
        self.square += float(wanted.square().sum())

    def error(self) -> float:
        return self.squared / max(self.square - self.total * self.total / max(1, self.count), 1e-30)


def _batches(examples: Examples, size: int, aside: bool = False) -> Iterator[Arguments]:
    """Batches of `size` of the examples that are kept aside, or of the others; what is left over begins again from the
    front. Batches of other shapes than the first are left out."""
    first = 0
    chosen: list[tuple[Inputs, int]] = []
    shapes = _shapes(examples.first)
    for batch, count in zip(examples.batches, examples.sizes, strict=True):
        numbers = torch.arange(first, first + count)
        first += count
        if _shapes(batch) == shapes:
            chosen += [(batch, i) for i in (examples.aside(numbers) == aside).nonzero()[:, 0].tolist()]
    if not chosen:
        return
    size = min(size, first)
    for start in range(0, len(chosen), size):
        some = [chosen[(start + i) % len(chosen)] for i in range(size)]
        yield _together(some)


def _shapes(batch: Inputs) -> object:
    return tree_map(lambda one: tuple(one.shape[1:]) if isinstance(one, Tensor) else one, arguments(batch))


def _together(some: Sequence[tuple[Inputs, int]]) -> Arguments:
    """Examples of several batches as one."""
    batch = some[0][0]
    if not isinstance(batch, Mapping):
        return (torch.cat([arguments(own)[0][0][i : i + 1] for own, i in some]),), {}
    names = per_example(batch)
    return (), {
        name: torch.cat([arguments(own)[1][name][i : i + 1] for own, i in some]) if name in names else value
        for name, value in batch.items()
    }
