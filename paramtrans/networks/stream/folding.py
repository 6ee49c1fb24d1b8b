"""Norms without weights: their scales and shifts moved into the layers that read them, means out of what writes.

SliceGPT (arXiv 2401.15024), section 3.2: a LayerNorm is an RMSNorm of what has its mean taken out, and an RMSNorm
without weights does the same in any orthonormal basis.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.fx import Node

from paramtrans.networks.graph.capture import Program, module_path
from paramtrans.networks.graph.proof import named_tensors
from paramtrans.networks.stream.contacts import Contacts, Read, refuse
from paramtrans.networks.stream.modules import ModuleChange, repeat, takes_bias
from paramtrans.plugins.registry import Registry


@torch.no_grad()
def fold(network: nn.Module, program: Program, contacts: Contacts, registry: Registry) -> list[ModuleChange]:
    """Make the norms of a stream plain RMSNorms; the network computes what it did.

    Scales that are the same for all units stay, as they do the same in any basis.

    Args:
        network: Is changed.
        program: Of the network.
        contacts: What touches the stream.
        registry: Architecture sources that are asked to let their configs follow.

    Returns:
        The modules that are others now.

    Raises:
        Refused: a scale or shift has no layer that takes it; nothing is changed then.
    """
    folding = _Folding(network, program, contacts)
    changes = [*folding.untied(), *folding.with_bias()]
    folding.check()
    repeat(network, changes, registry)
    folding.tensors = named_tensors(network)
    folding.read()
    folding.write()
    folding.neutralise()
    norms = dict.fromkeys(module_path(node) for node in contacts.layer_norms)
    norm_changes = [ModuleChange(path, "rms_norm") for path in norms]
    repeat(network, norm_changes, registry)
    return [*changes, *norm_changes]


class _Folding:
    """One stream's norms on their way into its layers."""

    def __init__(self, network: nn.Module, program: Program, contacts: Contacts) -> None:
        self.network, self.program, self.contacts = network, program, contacts
        self.tensors = named_tensors(network)
        vectors = [*contacts.scales, *contacts.shifts]
        self.vectors = {node: value_of(node, program, self.tensors).double().flatten() for node in vectors}
        self.scales = {node for node in contacts.scales if not _uniform(self.vectors[node])}
        self.shifts = {node for node in contacts.shifts if bool(self.vectors[node].any())}
        self.tensor_of: dict[Node, str] = {}
        """Layers that read by a tensor of their own now."""
        self.bias_of: dict[Node, str] = {}
        """Layers that have a bias now."""

    def scale(self, scales: tuple[Node, ...]) -> Tensor:
        """What units are multiplied by, of what does not stay, `[units]`."""
        return math.prod((self.vectors[node] for node in scales if node in self.scales), start=self._filled(1))

    def shift(self, read: Read) -> Tensor:
        """What is added to units on the way to a layer, `[units]`."""
        return sum((self.vectors[node] for node in read.shifts), self._filled(0))

    def untied(self) -> list[ModuleChange]:
        """Layers that need a weight of their own: it would be scaled for them, and not for what else it is used in."""
        by_weight: dict[str, list[Read]] = defaultdict(list)
        for read in self.contacts.reads:
            by_weight[read.tensor].append(read)
        changes: dict[ModuleChange, None] = {}
        for tensor, reads in by_weight.items():
            scales = [self.scale(read.scales) for read in reads]
            alike = all(torch.equal(scale, scales[0]) for scale in scales)
            written = any((tensor, read.axis) in self.contacts.writes for read in reads)
            for read, scale in zip(reads, scales, strict=True):
                if not alike or (written and not _uniform(scale)):
                    path = module_path(read.node)
                    self.tensor_of[read.node] = self._slot(path, read)
                    changes[ModuleChange(path, "untied")] = None
        return list(changes)

    def _slot(self, path: str, read: Read) -> str:
        """The name by which a layer holds a shared weight."""
        name = f"{path}.weight"
        shared = {n: t for n, t in self.tensors.items() if t is self._tensor(read.tensor)}
        at_path = {module_path(other.node) for other in self.contacts.reads if other.tensor == read.tensor}
        if name not in shared or len(shared) < 2 or (name == read.tensor and len(at_path) < 2):
            refuse(f"{read.tensor} is read behind a norm with weights, and used elsewhere without", read.node)
        return name

    def with_bias(self) -> list[ModuleChange]:
        """Layers that need a bias to take a norm's."""
        changes: dict[ModuleChange, None] = {}
        for read in self.contacts.reads:
            if read.bias is None and self.shifts & {*read.shifts}:
                path = module_path(read.node)
                if not takes_bias(self.network.get_submodule(path)):
                    refuse(f"{read.tensor} is read behind a norm with a bias, and takes none", read.node)
                self.bias_of[read.node] = f"{path}.bias"
                changes[ModuleChange(path, "bias")] = None
        return list(changes)

    def check(self) -> None:
        """Refuse tensors that would have to take several scales or shifts."""
        shifts = dict[str, Tensor]()
        for read in self.contacts.reads:
            shift = shifts.setdefault(self.weight_of(read), self.shift(read))
            if not torch.equal(shift, self.shift(read)):
                refuse(f"{read.tensor} is read behind several norms with other biases", read.node)
        for (name, _), writers in self.contacts.writes.items():
            scales = [self.written(writer) for writer in writers]
            if any(not torch.equal(scale, scales[0]) for scale in scales):
                refuse(f"{name} writes the stream under several scales", writers[0])
        for node, name in (*self.contacts.scales.items(), *self.contacts.shifts.items()):
            self._neutral(node, name, 1.0)

    def weight_of(self, read: Read) -> str:
        """The weight of a layer that reads, once it has its own."""
        return self.tensor_of.get(read.node, read.tensor)

    def written(self, writer: Node | None) -> Tensor:
        """What a layer's output is multiplied by on its way into the stream, `[units]`."""
        return self.scale(self.contacts.scaled.get(writer, ()) if writer is not None else ())

    def read(self) -> None:
        """Scales and shifts go into the layers that read."""
        for read in {self.weight_of(read): read for read in self.contacts.reads}.values():
            weight = self._tensor(self.weight_of(read))
            bias = self.bias_of.get(read.node, read.bias)
            columns = weight.double().movedim(read.axis, -1)
            if bias is not None and self.shifts & {*read.shifts}:
                vector = self._tensor(bias)
                vector.copy_(vector.double() + columns @ self.shift(read))
            weight.copy_((columns * self.scale(read.scales)).movedim(-1, read.axis))

    def write(self) -> None:
        """What writes takes the scales that stood behind it, and loses its mean over units."""
        for (name, axis), writers in self.contacts.writes.items():
            values = self._tensor(name).double().movedim(axis, -1) * self.written(writers[0])
            if self.contacts.layer_norms:
                values = values - values.mean(-1, keepdim=True)
            self._tensor(name).copy_(values.movedim(-1, axis))

    def neutralise(self) -> None:
        """What was folded becomes ones and zeros."""
        folded = [(node, self.contacts.scales[node], 1.0) for node in self.scales]
        folded += [(node, self.contacts.shifts[node], 0.0) for node in self.shifts]
        for node, name, wanted in folded:
            self._tensor(name).fill_(self._neutral(node, name, wanted))

    def _neutral(self, node: Node, name: str, wanted: float) -> float:
        """The number by which a norm's parameter makes a scale or shift of a given number, as 0 does in 1 + weight."""
        parameter = self._tensor(name)

        def given(number: float) -> float:
            return float(value_of(node, self.program, {name: torch.full_like(parameter, number)}).flatten()[0])

        at_zero, slope = given(0), given(1) - given(0)
        neutral = (wanted - at_zero) / slope if slope else math.nan
        if not abs(given(neutral) - wanted) < 1e-6:
            refuse(f"{name} scales the stream in a way that cannot be undone", node)
        return neutral

    def _tensor(self, name: str) -> Tensor:
        return self.tensors[name]

    def _filled(self, number: float) -> Tensor:
        device = next(self.network.parameters()).device
        return torch.full((self.contacts.stream.size,), number, dtype=torch.double, device=device)


def value_of(node: Node, program: Program, tensors: Mapping[str, Tensor]) -> Tensor:
    """The value of a node that depends on no input.

    Args:
        node: The node.
        program: Where it is from.
        tensors: Parameters and buffers by name.
    """
    if node.op != "call_function":
        name = program.names.get(node.name)
        constant: Tensor = program.constants[node.name] if name is None else tensors[name]
        return constant
    args, kwargs = torch.fx.node.map_arg(
        (node.args, node.kwargs), lambda operand: value_of(operand, program, tensors).clone()
    )
    value: Tensor = node.target(*args, **kwargs)  # type: ignore[operator]
    return value


def _uniform(vector: Tensor) -> bool:
    return bool((vector == vector[0]).all())
