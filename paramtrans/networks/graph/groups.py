"""The groups of a network that are made smaller: found, named, proven, and why the rest stays."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch import Tensor, nn

from paramtrans.networks.graph.capture import Arguments, Program, capture, code_line, read_by_hooks, used_tensors
from paramtrans.networks.graph.narrow import Removal, Setting
from paramtrans.networks.graph.proof import Proof, prove
from paramtrans.networks.graph.propagate import Labelled, propagate
from paramtrans.networks.graph.readers import ReaderLayer, read_by, readers, written_by
from paramtrans.networks.graph.residual import residual_classes
from paramtrans.networks.graph.stand_ins import stand_ins
from paramtrans.networks.graph.units import Classes, UnitGroup, find_units, summed_classes
from paramtrans.utils.counts import counted

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class NamedGroup:
    """A group of units of a network, with where it stands."""

    path: str
    """Path of the module that all its tensors are in; of the layer that writes its units, where that is taken."""
    units: UnitGroup
    readers: tuple[ReaderLayer, ...]
    """Layers that read the units and can be solved for, in the order in which they run."""
    stream: bool
    """Whether the units are those of a residual stream: branches add to what they read."""
    inner: bool
    """Whether the units are parts of those of another group (query-key pairs of a head)."""
    normalised: bool = False
    """Whether a mean or a normalisation is computed over the units, of those alone that stay."""
    writers: tuple[ReaderLayer, ...] = ()
    """Of a stream, layers that write its units and can be solved for."""

    def __len__(self) -> int:
        return len(self.units)

    @property
    def width(self) -> int:
        """Most indices that one unit has of an axis."""
        return max(axis.indices.shape[1] for axis in self.units.axes)

    @property
    def kind(self) -> str:
        """What the units are, in a word."""
        if self.stream:
            return "stream"
        return "units" if self.width == 1 else "groups"

    @property
    def title(self) -> str:
        """What it is called in messages: its path, and of a stream the layers that it runs through."""
        if not self.stream or self.inner:
            return self.path or "the network"
        layers = dict.fromkeys(name.rpartition(".")[0] or name for name in self.units.tensors)
        last = self.readers[-1].weight.rpartition(".")[0] if self.readers else list(layers)[-1]
        return f"stream of {counted(len(layers), 'layer')} ({self.path} … {last})"

    @property
    def hidden(self) -> bool:
        """Whether it is made smaller by default: hidden units, and whole heads."""
        return not (self.stream or self.inner or self.normalised)


@dataclass(frozen=True)
class Analysis:
    """The groups of units of a network, and what they were found by."""

    network: nn.Module
    labelled: Labelled
    classes: Classes
    groups: tuple[NamedGroup, ...]
    """All groups of units, in the order in which they are read."""
    readers: Mapping[str, ReaderLayer]
    residual: frozenset[int]
    """Classes of units of residual streams."""

    @property
    def program(self) -> Program:
        """The captured network."""
        return self.labelled.program

    def removal(self, retained: Mapping[NamedGroup, Tensor]) -> Removal:
        """What is left out where groups keep these units alone, `[count]` numbers of units each."""
        return Removal.of(self.labelled, self.classes, {group.units: units for group, units in retained.items()})

    def unknown(self) -> dict[str, str]:
        """Operations that nothing is known of, each with the line of code where labels ended at it first."""
        return {name: code_line(node) for name, node in self.labelled.unknown.items()}


def analyse(network: nn.Module, arguments: Arguments, stream: bool = False) -> Analysis:
    """The groups of units of a network in eval mode, from one pass on example inputs.

    Args:
        network: The network; it is not changed.
        arguments: What it is called with, by position and by name; two examples are enough.
        stream: Whether means and normalisations over units are computed over those that stay, so that the residual
            streams of transformers are groups as well; else such units are tied.

    Raises:
        SpecMismatch: `torch.export` cannot follow the network.
    """
    program = capture(network, arguments)
    hooked = read_by_hooks(network, program)
    labelled = propagate(program, hooked, stream)
    classes = Classes(labelled)
    layers = readers(labelled)
    trained = {name for name, _ in network.named_parameters(remove_duplicate=False)}
    used, read = trained & used_tensors(program, hooked), summed_classes(labelled, classes)
    units = [u for u in find_units(labelled) if used & {*u.tensors} and read & frozenset().union(*u.classes)]
    residual = residual_classes(labelled, classes) - {classes.pinned}
    normalised = {n for reduction in labelled.reductions for n in classes.of[reduction.label.numpy()].ravel().tolist()}
    order = {name: number for number, name in enumerate(layers)}
    groups = []
    for group in units:
        reading = read_by(group, layers)
        inner = any(outer is not group and inside(group, outer) for outer in units)
        stream = any(unit & residual for unit in group.classes)
        groups.append((group, reading, stream, inner, any(unit & normalised for unit in group.classes)))
    groups.sort(key=lambda entry: min((order[layer.weight] for layer in entry[1]), default=len(order)))
    paths = _paths([(group, inner, stream or norm) for group, _, stream, inner, norm in groups], layers)
    named = [
        NamedGroup(
            path,
            group,
            tuple(reading),
            stream,
            inner,
            norm,
            tuple(written_by(group, layers)) if stream else (),
        )
        for path, (group, reading, stream, inner, norm) in zip(paths, groups, strict=True)
    ]
    return Analysis(network, labelled, classes, tuple(named), layers, frozenset(residual))


def inside(group: UnitGroup, outer: UnitGroup) -> bool:
    """Whether the units of a group are parts of those of another one, as dimensions are of heads."""
    return len(outer) < len(group) and bool(frozenset().union(*group.classes) & frozenset().union(*outer.classes))


def _paths(groups: list[tuple[UnitGroup, bool, bool]], layers: Mapping[str, ReaderLayer]) -> list[str]:
    """A path for each group; `inner` ones are named by a layer. The paths of all others are the same whether there are
    groups on request (streams) beside them or not."""
    common = [_common([name.rpartition(".")[0] for name in group.tensors]) for group, _, _ in groups]
    outer = [(path, asked) for path, (_, inner, asked) in zip(common, groups, strict=True) if not inner]
    read_axes, order = {(layer.weight, layer.axis) for layer in layers.values()}, list(layers)
    paths = []
    for (group, inner, asked), path in zip(groups, common, strict=True):
        alike = outer.count((path, asked)) + (outer.count((path, False)) if asked else 0)
        if not path or inner or alike > 1:
            writers = [
                axis.tensor
                for axis in group.axes
                if (axis.tensor, axis.axis) not in read_axes and axis.tensor in layers
            ]
            writer = min(writers, key=order.index) if writers else group.axes[0].tensor
            path = writer.rpartition(".")[0]
        paths.append(path)
    taken: Counter[str] = Counter()
    for i in sorted(range(len(groups)), key=lambda i: groups[i][2]):
        taken[paths[i]] += 1
        paths[i] += f"#{taken[paths[i]]}" if taken[paths[i]] > 1 else ""
    return paths


def _common(paths: list[str]) -> str:
    """The longest path that all paths are in."""
    parts = [path.split(".") for path in paths]
    shared = [names[0] for names in zip(*parts, strict=False) if len({*names}) == 1]
    depth = next((i for i, names in enumerate(zip(*parts, strict=False)) if len({*names}) > 1), len(shared))
    return ".".join(shared[:depth])


@dataclass
class Proven:
    """Groups that may be made smaller by as many units as was asked, with what has to be set for it."""

    counts: dict[NamedGroup, int]
    settings: tuple[Setting, ...] = ()
    difference: float = 0.0
    refused: dict[str, str] = field(default_factory=dict)
    """Groups that may not, with the reason of each."""


Bundle = tuple[NamedGroup, ...]
"""Groups that become smaller with each other or not at all."""


def prove_groups(analysis: Analysis, counts: Mapping[NamedGroup, int], together: Iterable[Bundle] = ()) -> Proven:
    """Hold groups to the proof: one of each kind alone, then all together.

    Args:
        analysis: Of the network.
        counts: For each group, how many units stay.
        together: Groups that become smaller with each other or not at all.
    """
    proven = Proven({group: count for group, count in counts.items() if count < len(group)})
    values, likely = stand_ins(analysis.network), list[Setting]()
    bundles = [tuple(group for group in bundle if group in proven.counts) for bundle in together]
    bundled = {group for bundle in bundles for group in bundle}
    bundles += [(group,) for group in proven.counts if group not in bundled]

    def proof_of(bundles: Iterable[Bundle]) -> Proof:
        retained = {group: _even(group, proven.counts[group]) for bundle in bundles for group in bundle}
        return prove(values, analysis.removal(retained), likely)

    def refuse(bundle: Bundle, reason: str) -> None:
        bundles.remove(bundle)
        for group in bundle:
            proven.refused[group.path] = reason
            proven.counts.pop(group, None)
        for other in [other for other in bundles if set(other) & set(bundle)]:
            if other in bundles:
                refuse(other, reason)

    for _, similar in groupby(sorted(bundles, key=_sort), key=_sort):
        similar_bundles = [bundle for bundle in similar if bundle in bundles]
        proof = proof_of(similar_bundles[:1])
        likely += proof.settings
        if proof.failure is not None:
            for bundle in similar_bundles:
                if bundle in bundles:  # else it went with another one that has a group of it
                    refuse(bundle, proof.failure)
    joint = proof_of(bundles) if bundles else Proof(0.0, ())
    if joint.failure is not None:
        for bundle in list(bundles):
            failure = proof_of([bundle]).failure if bundle in bundles else None
            if failure is not None:
                refuse(bundle, failure)
        joint = proof_of(bundles) if bundles else Proof(0.0, ())
        if joint.failure is not None:
            proven.refused |= {group.path: f"not together with the others: {joint.failure}" for group in proven.counts}
            proven.counts.clear()
    proven.settings, proven.difference = joint.settings, joint.difference
    return proven


def _even(group: NamedGroup, count: int) -> Tensor:
    """As many units at even distances."""
    scores = torch.zeros(len(group))
    scores[torch.arange(count) * len(group) // count] = 1
    return group.units.choose(scores, count)


def _sort(bundle: Bundle) -> str:
    """What bundles of layers alike have in common: their tensors without the numbers in their names."""
    axes = [axis for group in bundle for axis in group.units.axes]
    names = ["".join("#" if letter.isdigit() else letter for letter in axis.tensor) for axis in axes]
    return "|".join(f"{name}:{axis.axis}:{axis.indices.shape[1]}" for name, axis in zip(names, axes, strict=True))
