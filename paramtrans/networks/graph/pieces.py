"""Pieces of a smaller network, from the layers that write a group of units to those that read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node

from paramtrans.api.units import Entered, UnitPiece
from paramtrans.errors import SpecMismatch
from paramtrans.networks.forward.examples import Examples
from paramtrans.networks.forward.spool import Spool
from paramtrans.networks.graph.capture import Arguments, Program, capture
from paramtrans.networks.graph.cut import Cut, cut_out
from paramtrans.networks.graph.evaluate import as_function, node_values, placeholder_values
from paramtrans.networks.graph.functional import without_changes
from paramtrans.networks.graph.groups import Analysis, NamedGroup
from paramtrans.networks.graph.labels import axes_of
from paramtrans.networks.graph.narrow import Removal
from paramtrans.networks.graph.operators import Value, name_of
from paramtrans.networks.graph.proof import named_tensors
from paramtrans.networks.graph.same_shape import by_shape
from paramtrans.networks.graph.summed import summed_axis
from paramtrans.ops.distances import RelativeError

DIRECTLY = {"batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "dropout", "clone"}
"""Operations on what a layer gives that a piece goes on through: features are to be what they were as they are read."""
ACTIVATIONS = {"relu", "gelu", "silu", "hardswish", "hardtanh", "relu6", "leaky_relu", "elu", "tanh", "sigmoid", "mish"}
"""Operations on what a layer gives that end a piece."""


@dataclass(frozen=True)
class _Pass:
    """Both networks as programs that take batches of one shape, and the batches."""

    programs: tuple[Program, ...]
    """Of the untouched network, and of the smaller one."""
    graphs: tuple[Graph, ...]
    batches: list[Arguments]
    aside: list[Arguments]
    """Batches of examples that nothing is fitted to."""

    @property
    def kinds(self) -> list[list[tuple[str, str, str]]]:
        """What the nodes of each graph are."""
        return [[(node.op, node.name, str(node.target)) for node in graph.nodes] for graph in self.graphs]

    def node(self, name: str) -> Node:
        """A node of the smaller network's graph."""
        node: Node = next(node for node in self.graphs[1].nodes if node.name == name)
        return node


class Pieces:
    """Both networks as programs, and the pieces of the smaller one."""

    def __init__(self, analysis: Analysis, removal: Removal, small: nn.Module, examples: Examples, size: int) -> None:
        """Raises `SpecMismatch` where `torch.export` does not follow the smaller network as it does the other."""
        self.analysis, self.removal, self.small = analysis, removal, small
        passes: list[_Pass] = []
        for fit, aside in by_shape(examples, size):
            with suppress(SpecMismatch) if passes else nullcontext():  # the shape of most examples has to be followed
                passes.append(self._pass(fit, aside))
        if passes[0].kinds[0] != passes[0].kinds[1]:
            raise SpecMismatch("the smaller network goes through other operations than the untouched one")
        # Examples with which the networks go through other operations than with the most are left out.
        self.passes = [other for other in passes if other.kinds == passes[0].kinds]
        self.programs, self.graphs = passes[0].programs, passes[0].graphs

    def _pass(self, batches: list[Arguments], aside: list[Arguments]) -> _Pass:
        programs = tuple(capture(network, batches[0]) for network in (self.analysis.network, self.small))
        return _Pass(programs, tuple(without_changes(program) for program in programs), batches, aside)

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
        trained = {name for name, _ in self.small.named_parameters(remove_duplicate=False)}
        ends = self._ends(group, self.graphs[1])
        names = trained & ({*group.units.tensors} | {name for end in ends for name in end.tensors})
        batches = _Batches(self, names, [end.node.name for end in ends])
        tensors = self.tensors()
        params = {name: tensors[name].detach() for name in batches.params}
        return UnitPiece(group.path, params, batches.run, batches, seed)

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
        for one_pass in self.passes:
            for batch in one_pass.aside:
                outputs = node_values(one_pass.programs[1], one_pass.graphs[1], self.tensors(), batch, names)
                for name, expected in self.expected(one_pass, batch, sorted(names)).items():
                    errors[name].add(outputs[name], expected)
        is_known = any(one_pass.aside for one_pass in self.passes)
        known = {name: error.value for name, error in errors.items()} if is_known else {}
        of_groups: dict[NamedGroup, float] = {}
        for group, end_names in ends.items():
            for error in (known.get(name) for name in end_names):
                if error is not None:
                    of_groups[group] = max(error, of_groups.get(group, 0.0))
        return of_groups

    def expected(self, one_pass: _Pass, batch: Arguments, names: Sequence[str]) -> dict[str, Tensor]:
        """Values of nodes in the untouched network, without what the smaller one has left out.

        Args:
            one_pass: The programs for batches of this shape.
            batch: What both networks are called with.
            names: Of the nodes.
        """
        tensors = named_tensors(self.analysis.network)
        original = node_values(one_pass.programs[0], one_pass.graphs[0], tensors, batch, names)
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


class _Batches:
    """What enters a piece and what should leave it, recorded when it is first gone through."""

    def __init__(self, pieces: Pieces, names: set[str], leaving: list[str]) -> None:
        """`names`: of the tensors that are trained; `leaving`: nodes that the piece ends at."""
        self.pieces, self.leaving = pieces, leaving
        self._cuts = [
            cut_out(one_pass.programs[1], one_pass.graphs[1], names, [one_pass.node(name) for name in leaving])
            for one_pass in pieces.passes
        ]
        self._entering = [
            [node.name for node in cut.entering if _enters(node, one_pass.programs[1])]
            for one_pass, cut in zip(pieces.passes, self._cuts, strict=True)
        ]
        self._runs: dict[tuple[torch.Size, ...], _Run] = {}
        self._recorded: tuple[list[Spool], list[Spool]] | None = None

    @property
    def params(self) -> list[str]:
        """Names of the tensors that are trained."""
        return list(self._cuts[0].params)

    def run(self, params: Mapping[str, Tensor], entered: Entered) -> tuple[Tensor, ...]:
        """The piece, for what enters it of a batch of one of the shapes."""
        return self._runs[_key(entered)](params, entered)

    def __iter__(self) -> Iterator[tuple[Entered, tuple[Tensor, ...]]]:
        if self._recorded is None:
            self._recorded = self._record()
        entered, leaving = self._recorded
        yield from zip(zip(*entered, strict=True), zip(*leaving, strict=True), strict=True)

    def _record(self) -> tuple[list[Spool], list[Spool]]:
        pieces, tensors = self.pieces, self.pieces.tensors()
        entered, left_spools = [Spool() for _ in self._entering[0]], [Spool() for _ in self.leaving]
        for one_pass, cut, entering in zip(pieces.passes, self._cuts, self._entering, strict=True):
            program, graph = one_pass.programs[1], one_pass.graphs[1]
            computed = {node.name for node in graph.nodes if node.op != "placeholder"}
            for batch in one_pass.batches:
                by_name = placeholder_values(program, tensors, batch)
                by_name |= node_values(program, graph, tensors, batch, [name for name in entering if name in computed])
                values = [by_name[name].detach() for name in entering]
                for spool, value in zip(entered, values, strict=True):
                    spool.add(value)
                expected = pieces.expected(one_pass, batch, self.leaving)
                for spool, name in zip(left_spools, self.leaving, strict=True):
                    spool.add(expected[name])
                if _key(values) not in self._runs:
                    ends = [one_pass.node(name) for name in self.leaving]
                    self._runs[_key(values)] = _run(program, cut, ends, by_name)
        return entered, left_spools


_Run = Callable[[Mapping[str, Tensor], Entered], tuple[Tensor, ...]]


def _run(program: Program, cut: Cut, ends: Sequence[Node], by_placeholder: Mapping[str, Tensor]) -> _Run:
    """A piece as a function of its trained tensors and of what enters it."""
    entering = [node for node in cut.entering if _enters(node, program)]
    fixed = [node for node in cut.entering if not _enters(node, program)]
    constants = [by_placeholder[node.name] for node in fixed]
    function = as_function(program, cut.nodes, [*cut.params.values(), *fixed, *entering], ends)

    def run(params: Mapping[str, Tensor], entered: Entered) -> tuple[Tensor, ...]:
        return function(*(params[name] for name in cut.params), *constants, *entered)  # type: ignore[no-any-return]

    return run


def _enters(node: Node, program: Program) -> bool:
    """Whether a value that a piece needs depends on the inputs, as other parameters and constants do not."""
    return node.op != "placeholder" or node.name in program.inputs


def _key(entered: Entered) -> tuple[torch.Size, ...]:
    return tuple(tensor.shape for tensor in entered)
