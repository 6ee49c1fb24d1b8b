"""The residual streams of a network, and what touches each: where all of that is known, it can be rotated."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from torch import nn
from torch.fx import Node
from torch.utils._pytree import tree_flatten

from paramtrans.networks.graph.capture import module_path
from paramtrans.networks.graph.groups import Analysis
from paramtrans.networks.graph.operators import Rules, Value, name_of
from paramtrans.networks.stream import layers, rules
from paramtrans.networks.stream.contacts import Contacts, Stream, refuse
from paramtrans.networks.stream.walk import CHECKS, Walk

RULES = Rules(rules.rule | layers.rule)


def streams(analysis: Analysis) -> list[Stream]:
    """The residual streams of a network that its outputs and users' hooks do not show.

    Args:
        analysis: Of the network.
    """
    stream_of = _together(analysis)
    axes: dict[int, dict[str, tuple[int, ...]]] = defaultdict(dict)
    sizes: dict[int, set[int]] = defaultdict(set)
    for name, axes_of_tensor in analysis.labelled.axes.items():
        for axis, atoms in enumerate(axes_of_tensor):
            numbers = {stream_of.get(number) for number in analysis.classes.of[atoms.numpy()].tolist()}
            for number in numbers - {None}:
                assert number is not None
                axes[number][name] = (*axes[number].get(name, ()), axis)
                sizes[number].add(len(atoms))
    return [Stream(axes[number], min(sizes[number])) for number in axes]


def _together(analysis: Analysis) -> dict[int, int]:
    """For each class of units of residual streams its stream: units that stand along one axis are of the same."""
    stream_of = {number: number for number in analysis.residual}
    for leaf in tree_flatten(list(analysis.labelled.values.values()))[0]:
        for label in leaf.labels if isinstance(leaf, Value) else ():
            numbers = {int(n) for n in np.unique(analysis.classes.of[label.numpy()])} & stream_of.keys()
            joined = {stream_of[number] for number in numbers}
            if len(joined) > 1:
                stream_of |= {number: min(joined) for number, stream in stream_of.items() if stream in joined}
    return stream_of


def contacts(analysis: Analysis, stream: Stream) -> Contacts:
    """What touches a stream.

    Args:
        analysis: Of the network.
        stream: One of its streams.

    Raises:
        Refused: something does that a rotation of the stream would change.
    """
    walk = Walk(analysis.program, stream)
    for node in analysis.program.nodes:
        if node.op == "call_function" and name_of(node) not in CHECKS:
            _pass(walk, node)
        elif node.op == "placeholder" and node.name not in analysis.program.inputs:
            walk.constant.add(node)
    _check(analysis, walk.contacts)
    return walk.contacts


def _pass(walk: Walk, node: Node) -> None:
    """One operation."""
    touched = any(operand in walk.roles for operand in node.all_input_nodes)
    if touched and name_of(node) not in RULES:
        refuse(f"{name_of(node)} works on each unit of the stream by itself, or mixes them", node)
    role = RULES[name_of(node)](walk, node) if touched or name_of(node) in layers.rule else None
    if role is not None:
        walk.roles[node] = role
    elif all(operand in walk.constant for operand in node.all_input_nodes):
        walk.constant.add(node)


def _check(analysis: Analysis, contacts: Contacts) -> None:
    """Refuse a stream that is read in part past its LayerNorms, or that something else touches."""
    if contacts.layer_norms and contacts.direct:
        refuse("the stream is read with its mean here, and without it by LayerNorms", contacts.direct[0])
    for node in contacts.layer_norms:
        path = module_path(node)
        module = analysis.network.get_submodule(path)
        beside = [name_of(n) for n in analysis.program.nodes if n.op == "call_function" and module_path(n) == path]
        if not isinstance(module, nn.LayerNorm) or {*beside} - {*CHECKS} != {"layer_norm"}:
            refuse("a LayerNorm that is no module by itself cannot become an RMSNorm", node)
    rotating, vectors = {*contacts.rotating}, {*contacts.scales.values(), *contacts.shifts.values()}
    for name, axes in contacts.stream.axes.items():
        for axis in axes:
            if ((name, axis) in rotating) == (name in vectors):
                refuse(f"{name} touches the stream in a way that nothing is known of")
    lost = {name for name, _ in rotating} - {*analysis.network.state_dict()}
    if lost:
        refuse(f"{min(lost)} goes into the stream, and is a buffer that no file keeps")
    if not contacts.writes or not contacts.reads:
        refuse("no layer both writes and reads it")
