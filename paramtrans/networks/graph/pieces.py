"""Pieces of a smaller network, from the layers that write a group of units to those that read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node
from torch.utils._pytree import tree_map

from paramtrans.api.units import Entered, UnitPiece
from paramtrans.errors import SpecMismatch
from paramtrans.networks.forward.activations import Inputs, arguments, per_example
from paramtrans.networks.forward.examples import Examples
from paramtrans.networks.forward.spool import Spool
from paramtrans.networks.graph.capture import Arguments, Program, capture
from paramtrans.networks.graph.evaluate import as_function, node_values, placeholder_values
from paramtrans.networks.graph.functional import without_changes
from paramtrans.networks.graph.groups import Analysis, NamedGroup
from paramtrans.networks.graph.labels import axes_of
from paramtrans.networks.graph.narrow import Removal
from paramtrans.networks.graph.operators import Value, name_of
from paramtrans.networks.graph.proof import named_tensors
from paramtrans.networks.graph.summed import summed_axis
from paramtrans.ops.distances import RelativeError

DIRECTLY = {"batch_norm", "dropout", "clone"}
"""Operations on what a layer gives that a piece goes on through."""
ACTIVATIONS = {"relu", "gelu", "silu", "hardswish", "hardtanh", "relu6", "leaky_relu", "elu", "tanh", "sigmoid", "mish"}
"""Operations on what a layer gives that end a piece."""


class Pieces:
    """Both networks as programs that take batches of one size, and the pieces of the smaller one."""

    def __init__(self, analysis: Analysis, removal: Removal, small: nn.Module, examples: Examples, size: int) -> None:
        """Raises `SpecMismatch` where `torch.export` does not follow the smaller network as it does the other."""
        self.analysis, self.removal, self.small = analysis, removal, small
        self.batches = list(_batches(examples, size))
        held_out = list(_batches(examples, size, aside=True))
        self.aside = held_out
        batch = self.batches[0]
        self.programs = tuple(capture(network, batch) for network in (analysis.network, small))
        self.graphs = tuple(without_changes(program) for program in self.programs)
        kinds = [[(node.op, node.name, str(node.target)) for node in graph.nodes] for graph in self.graphs]
        if kinds[0] != kinds[1]:
            raise SpecMismatch("the smaller network goes through other operations than the untouched one")

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers of the smaller network, as they are."""
        return named_tensors(self.small)

    def piece(self, group: NamedGroup, seed: int) -> UnitPiece:
        """The piece of a group.

        Args:
            group: A group that became smaller.
            seed: For whatever its translator draws.

        Raises:
            SpecMismatch: it is not known where a sum over the group's units leads.
        """
        program, graph = self.programs[1], self.graphs[1]
        trained = {name for name, _ in self.small.named_parameters(remove_duplicate=False)}
        ends = self._ends(group, graph)
        names = trained & ({*group.units.tensors} | {name for end in ends for name in end.tensors})
        part = _cut(program, graph, names, [end.node for end in ends])
        by_placeholder = placeholder_values(program, tensors := self.tensors(), self.batches[0])
        fixed = [node for node in part.entering if node.op == "placeholder" and node.name not in program.inputs]
        entering = [node for node in part.entering if node not in fixed]
        run = as_function(program, part.nodes, [*part.params.values(), *fixed, *entering], [end.node for end in ends])
        constants = [by_placeholder[node.name] for node in fixed]

        def compute(params: Mapping[str, Tensor], entered: Entered) -> tuple[Tensor, ...]:
            return run(*(params[name] for name in part.params), *constants, *entered)  # type: ignore[no-any-return]

        params = {name: tensors[name].detach() for name in part.params}
        batches = _Batches(self, [node.name for node in entering], [end.node.name for end in ends])
        return UnitPiece(group.path, params, compute, batches, seed)

    def errors(self, groups: Sequence[NamedGroup]) -> dict[NamedGroup, float]:
        """Relative error of what leaves the layers that read each group, on examples that were kept aside.

        It is the squared change over the variance in the untouched network, the largest of the group's layers that give
        something else for other examples.

        Args:
            groups: Those that became smaller.

        Returns:
            For each group that such layers read; empty where no examples were kept aside.
        """
        ends: dict[NamedGroup, list[str]] = {}
        for group in groups:
            with suppress(SpecMismatch):  # as of queries and keys, whose products are no layer's
                ends[group] = [end.node.name for end in self._ends(group, self.graphs[1])]
        names = {name for end_names in ends.values() for name in end_names}
        errors = {name: RelativeError() for name in names}
        for batch in self.aside:
            outputs = node_values(self.programs[1], self.graphs[1], self.tensors(), batch, names)
            for name, expected in self.expected(batch, sorted(names)).items():
                errors[name].add(outputs[name], expected)
        known = {name: error.value for name, error in errors.items()} if self.aside else {}
        of_groups: dict[NamedGroup, float] = {}
        for group, end_names in ends.items():
            for error in (known.get(name) for name in end_names):
                if error is not None:
                    of_groups[group] = max(error, of_groups.get(group, 0.0))
        return of_groups

    def expected(self, batch: Arguments, names: Sequence[str]) -> dict[str, Tensor]:
        """Values of nodes in the untouched network, without what the smaller one has left out.

        Args:
            batch: What both networks are called with.
            names: Of the nodes.
        """
        tensors = named_tensors(self.analysis.network)
        original = node_values(self.programs[0], self.graphs[0], tensors, batch, names)
        return {name: self._kept(name, original[name]) for name in names}

    def _kept(self, name: str, value: Tensor) -> Tensor:
        labelled_value = self.analysis.labelled.values.get(name)
        for label in labelled_value.labels if isinstance(labelled_value, Value) else ():
            stays = self.removal.stays(label)
            if not bool(stays.all()):
                [axis] = axes_of(label)
                value = value.index_select(axis, stays.flatten().nonzero()[:, 0].to(value.device))
        return value

    def _ends(self, group: NamedGroup, graph: Graph) -> list[_End]:
        names = self.programs[1].names
        ends = []
        for node in graph.nodes:
            axis = summed_axis(node, names)
            if axis is not None and any((unit_axis.tensor, unit_axis.axis) == axis for unit_axis in group.units.axes):
                ends.append(self._followed(node))
        units = frozenset[int]().union(*group.units.classes)
        classes = self.analysis.classes.of
        contractions = self.analysis.labelled.contractions
        layers = {contraction.node for contraction in contractions if contraction.weight is not None}
        for contraction in contractions:
            label_classes = classes[contraction.label.numpy()].ravel().tolist()
            if contraction.node not in layers and not units.isdisjoint(label_classes):
                result = self.analysis.labelled.values.get(contraction.node.name)
                labels = result.labels if isinstance(result, Value) else []
                if not any(not units.isdisjoint(classes[label.numpy()].ravel().tolist()) for label in labels):
                    raise SpecMismatch(f"its units are read by {contraction.node.name}, which is no layer")
        if not ends:
            raise SpecMismatch("no layer reads its units")
        return ends

    def _followed(self, node: Node) -> _End:
        """Behind the normalisation, the sum and the activation that directly follow a layer."""
        names, tensors, has_sum = self.programs[1].names, _named(node, self.programs[1].names), False
        end, labelled = node, self.analysis.labelled.values
        while len(node.users) == 1:
            [user] = node.users
            joins = name_of(user) in ("add", "sub") and not has_sum and all(isinstance(a, Node) for a in user.args[:2])
            if not (name_of(user) in DIRECTLY | ACTIVATIONS or joins) or not self._selectable(user):
                break
            has_sum |= joins
            node = user
            tensors |= _named(node, names)
            end = node if node.name in labelled else end  # copies that in-place operations work on are in no program
            if name_of(node) in ACTIVATIONS:
                break
        return _End(end, frozenset(tensors))

    def _selectable(self, node: Node) -> bool:
        """Whether what stays of a value is the same along all of each of its axes."""
        labelled_value = self.analysis.labelled.values.get(node.name)
        labels = labelled_value.labels if isinstance(labelled_value, Value) else []
        return all(len(axes_of(label)) == 1 or bool(self.removal.stays(label).all()) for label in labels)


@dataclass(frozen=True)
class _End:
    """Where a piece ends, and the tensors that are read on the way from the layer to there."""

    node: Node
    tensors: frozenset[str]


def _named(node: Node, names: Mapping[str, str]) -> set[str]:
    return {names[operand.name] for operand in node.all_input_nodes if operand.name in names}


@dataclass(frozen=True)
class _Cut:
    """A piece of a graph."""

    params: Mapping[str, Node]
    nodes: list[Node]
    entering: list[Node]


def _cut(program: Program, graph: Graph, names: set[str], ends: Sequence[Node]) -> _Cut:
    """All that lies between parameters and the ends; those that also matter elsewhere are left out."""
    ancestors: set[Node] = set()
    open_nodes = list(ends)
    while open_nodes:
        node = open_nodes.pop()
        if node not in ancestors:
            ancestors.add(node)
            open_nodes += node.all_input_nodes
    params = {program.names[node.name]: node for node in graph.nodes if program.names.get(node.name) in names}
    params = {name: node for name, node in params.items() if node.users and ancestors.issuperset(node.users)}
    reached, nodes, entering = {*params.values()}, list[Node](), dict[Node, None]()
    for node in graph.nodes:
        if node.op == "call_function" and node in ancestors and not reached.isdisjoint(node.all_input_nodes):
            reached.add(node)
            nodes.append(node)
            entering |= dict.fromkeys(operand for operand in node.all_input_nodes if operand not in reached)
    return _Cut(params, nodes, list(entering))


class _Batches:
    """What enters a piece and what should leave it, recorded when it is first gone through."""

    def __init__(self, pieces: Pieces, entering: list[str], leaving: list[str]) -> None:
        self.pieces, self.entering, self.leaving = pieces, entering, leaving
        self._recorded: tuple[list[Spool], list[Spool]] | None = None

    def __iter__(self) -> Iterator[tuple[Entered, tuple[Tensor, ...]]]:
        if self._recorded is None:
            self._recorded = self._record()
        entered, leaving = self._recorded
        yield from zip(zip(*entered, strict=True), zip(*leaving, strict=True), strict=True)

    def _record(self) -> tuple[list[Spool], list[Spool]]:
        entered, left_spools = [Spool() for _ in self.entering], [Spool() for _ in self.leaving]
        pieces = self.pieces
        program, graph, tensors = pieces.programs[1], pieces.graphs[1], pieces.tensors()
        computed = {node.name for node in graph.nodes if node.op != "placeholder"}
        for batch in pieces.batches:
            by_name = placeholder_values(program, tensors, batch)
            by_name |= node_values(program, graph, tensors, batch, [name for name in self.entering if name in computed])
            for spool, name in zip(entered, self.entering, strict=True):
                spool.add(by_name[name].detach())
            expected = pieces.expected(batch, self.leaving)
            for spool, name in zip(left_spools, self.leaving, strict=True):
                spool.add(expected[name])
        return entered, left_spools


def _batches(examples: Examples, size: int, aside: bool = False) -> Iterator[Arguments]:
    """Batches of `size` of the examples that are kept aside, or of the others; what is left over begins again from the
    front. Batches of other shapes than the first are left out."""
    begin = 0
    chosen: list[tuple[Inputs, int]] = []
    shapes = _shapes(examples.first)
    for batch, count in zip(examples.batches, examples.sizes, strict=True):
        numbers = torch.arange(begin, begin + count)
        begin += count
        if _shapes(batch) == shapes:
            chosen += [(batch, i) for i in (examples.aside(numbers) == aside).nonzero()[:, 0].tolist()]
    if not chosen:
        return
    size = min(size, begin)
    for start in range(0, len(chosen), size):
        yield _together([chosen[(start + i) % len(chosen)] for i in range(size)])


def _shapes(batch: Inputs) -> object:
    return tree_map(lambda leaf: tuple(leaf.shape[1:]) if isinstance(leaf, Tensor) else leaf, arguments(batch))


def _together(chosen: Sequence[tuple[Inputs, int]]) -> Arguments:
    """Examples of several batches as one."""
    first_batch = chosen[0][0]
    if not isinstance(first_batch, Mapping):
        return (torch.cat([arguments(batch)[0][0][i : i + 1] for batch, i in chosen]),), {}
    names = per_example(first_batch)
    return (), {
        name: torch.cat([arguments(batch)[1][name][i : i + 1] for batch, i in chosen]) if name in names else value
        for name, value in first_batch.items()
    }
