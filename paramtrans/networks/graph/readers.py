"""Layers that read units: which they are, and the rows of the equations that they are solved for by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.nn.functional import pad

from paramtrans.networks.forward.lockstep import Call, operation_name
from paramtrans.networks.graph.capture import Program
from paramtrans.networks.graph.operators import name_of
from paramtrans.networks.graph.propagate import Labelled
from paramtrans.networks.graph.summed import AXES, has_groups, weight_of
from paramtrans.networks.graph.units import UnitGroup

ROWS_A_VALUE = 16
"""Rows of the equations for each value that is read, at most: more change the solution by less than held-out error."""
LEAST_ROWS = 2**14
"""Rows that are taken in any case, where there are so many: a ResNet-8 with 512 images lost 0.2 points by 2**12."""


@dataclass(frozen=True)
class ReaderLayer:
    """A Linear, a convolution of one group or a matrix product that reads units of a network."""

    weight: str
    axis: int
    """Axis of the weight that runs over what is read."""
    bias: str | None
    mean: str | None
    """The running mean of a BatchNorm that directly follows, which can take up a constant where there is no bias; None
    where others use it too, as of `bias`."""
    gain: tuple[str | None, str, float] | None
    """The scale, the running variance and the epsilon of that BatchNorm."""
    times: int
    """How often it is passed in a run of the network."""
    alone: bool
    """Whether nothing else uses its weight, as an embedding does that is tied to the network's last layer."""

    @property
    def solvable(self) -> bool:
        """Whether it can be solved for where it is passed: what was computed before stays as it was."""
        return self.times == 1 and self.alone


@dataclass(frozen=True)
class Sampling:
    """How many rows are drawn of a batch."""

    examples: int
    """Examples in the batch."""
    total: int
    """Examples in all batches together."""
    seed: int
    values: int
    """Values that the layer reads in the untouched network, so that both networks give the same rows."""


def readers(labelled: Labelled) -> dict[str, ReaderLayer]:
    """The layers of a network that can be solved for, by the name of their weight, in the order in which they run."""
    layers: dict[str, ReaderLayer] = {}
    passed, read_along = dict[str, int](), dict[str, set[int]]()
    names = labelled.program.names
    uses = Counter(names.get(operand.name) for node in labelled.program.nodes for operand in node.all_input_nodes)
    for node in labelled.program.nodes:
        weight = weight_of(node, names)
        if weight is None:
            continue
        axis = AXES[name_of(node)]
        passed[weight] = passed.get(weight, 0) + 1
        read_along.setdefault(weight, set()).add(axis)
        if has_groups(node) or name_of(node).startswith("conv_transpose"):
            continue
        norm = _norm(node, labelled.program)
        mean, gain = (norm[0], norm[1:]) if norm else (None, None)
        # What another layer uses as well cannot take up this one's constant.
        bias, mean = (name if uses[name] == passed[weight] else None for name in (_bias(node, labelled.program), mean))
        alone = uses[weight] == passed[weight]
        layers[weight] = ReaderLayer(weight, axis, bias, mean, gain, passed[weight], alone)
    # A weight that is read along both axes, as by a layer and by its transpose, is no one layer.
    return {weight: layer for weight, layer in layers.items() if len(read_along[weight]) == 1}


def read_by(group: UnitGroup, layers: Mapping[str, ReaderLayer]) -> list[ReaderLayer]:
    """The layers that read units of a group.

    Args:
        group: The group.
        layers: All layers, as `readers` gives them.
    """
    unit_axes = {(axis.tensor, axis.axis) for axis in group.axes}
    return [layer for layer in layers.values() if (layer.weight, layer.axis) in unit_axes]


def written_by(group: UnitGroup, layers: Mapping[str, ReaderLayer]) -> list[ReaderLayer]:
    """The layers that write units of a group.

    Args:
        group: The group.
        layers: All layers, as `readers` gives them.
    """
    unit_axes = {(axis.tensor, axis.axis) for axis in group.axes}
    return [layer for layer in layers.values() if (layer.weight, 1 - layer.axis) in unit_axes]


def _argument(node: Node, position: int, name: str, default: Any) -> Any:
    return node.kwargs.get(name, node.args[position] if len(node.args) > position else default)


def _named(argument: Any, program: Program) -> str | None:
    return program.names.get(argument.name) if isinstance(argument, Node) else None


def _bias(node: Node, program: Program) -> str | None:
    name = name_of(node)
    if name == "addmm":
        return _named(node.args[0], program)
    return None if name in ("matmul", "mm") else _named(_argument(node, 2, "bias", None), program)


def _norm(node: Node, program: Program) -> tuple[str, str | None, str, float] | None:
    """The BatchNorm that alone reads what an operation gives: its running mean, scale, running variance and epsilon."""
    users = list(node.users)
    if len(users) != 1 or name_of(users[0]) != "batch_norm" or users[0].args[0] is not node:
        return None
    scale, mean, variance = (_named(users[0].args[i], program) for i in (1, 3, 4))
    return None if mean is None or variance is None else (mean, scale, variance, float(users[0].args[7]))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Rows:
    """Rows of a layer's equations."""

    read: Tensor
    """What the layer reads, `[rows, values]`."""
    matrix: Tensor
    """The layer's weight, `[values, outputs]`."""
    example: Tensor
    """The number of the example, `[rows]`."""
    added_to: Tensor | None
    """What its output will be added to, `[rows, outputs]`, where that is known."""

    def output(self) -> Tensor:
        """What the layer would give without a bias, `[rows, outputs]`: computed anew, as it may be large."""
        return self.read @ self.matrix.float()


def batch_norm_gain(layer: ReaderLayer, tensors: Mapping[str, Tensor]) -> Tensor | None:
    """What the BatchNorm behind a layer multiplies each output by, `[outputs]`; None where there is none.

    Args:
        layer: The layer.
        tensors: Parameters and buffers of the network by name.
    """
    if layer.gain is None:
        return None
    scale, variance, eps = layer.gain
    gain = (tensors[variance].double() + eps).rsqrt()
    return gain if scale is None else gain * tensors[scale].double()


@torch.no_grad()
def rows(call: Call, sampling: Sampling) -> Rows:
    """The rows of a layer's equations. Of many positions some are drawn, the same for every pass.

    Args:
        call: The layer, with what it is about to be computed from.
        sampling: How many rows are drawn, by which seed.
    """
    weight = call.args[call.position]
    entering = call.args[call.position - 1]
    if is_convolution := "conv" in operation_name(call.function):
        read, chosen, count = _patches(entering, weight, call, sampling)
        matrix = weight.flatten(1).mT
    else:
        read = entering.reshape(-1, entering.shape[-1])
        matrix = weight.mT if operation_name(call.function) == "linear" else weight
        chosen, count = _some(len(read), sampling), len(read)
        read = _picked(read, chosen)
    example = torch.arange(len(read)) // max(1, len(read) // sampling.examples)
    added_to = call.added_to
    if added_to is not None:
        added_to = (added_to.movedim(1, -1) if is_convolution else added_to).flatten(0, -2)
        fits = added_to.shape == (count, matrix.shape[1])
        added_to = _picked(added_to, chosen).float() if fits else None
    return Rows(read.float(), matrix, example, added_to)


def _picked(tensor: Tensor, chosen: Tensor) -> Tensor:
    """Some rows of a tensor, in order; the tensor itself where these are all."""
    return tensor if len(chosen) == len(tensor) else tensor[chosen]


def _some(count: int, sampling: Sampling) -> Tensor:
    """Numbers of some of `count` rows, which stand example by example, equally many of each."""
    positions = count // sampling.examples
    limit = max(1, -(-max(LEAST_ROWS, ROWS_A_VALUE * sampling.values) // sampling.total))
    if positions <= limit:
        return torch.arange(count)
    generator = torch.Generator().manual_seed(sampling.seed)
    chosen = [torch.randperm(positions, generator=generator)[:limit].sort().values for _ in range(sampling.examples)]
    return (torch.stack(chosen) + positions * torch.arange(sampling.examples)[:, None]).flatten()


def _patches(entering: Tensor, weight: Tensor, call: Call, sampling: Sampling) -> tuple[Tensor, Tensor, int]:
    """What a convolution reads at some positions of each example, `[rows, channels · kernel]`; which of how many."""
    kernel = weight.shape[2:]
    ndim = len(kernel)
    stride, padding, dilation = (
        _tuple(_given(call, position, name, default), ndim)
        for position, name, default in ((3, "stride", 1), (4, "padding", 0), (5, "dilation", 1))
    )
    if isinstance(padding, str):
        total_padding = (
            [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)] if padding == "same" else [0] * ndim
        )
        padding_before = [t // 2 for t in total_padding]
        padding_after = [t - b for t, b in zip(total_padding, padding_before, strict=True)]
    else:
        padding_before = padding_after = list(padding)
    flat_padding = [side for b, a in reversed(list(zip(padding_before, padding_after, strict=True))) for side in (b, a)]
    padded = pad(entering, flat_padding) if any(flat_padding) else entering
    sizes = [(padded.shape[2 + i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in range(ndim)]
    positions = int(torch.Size(sizes).numel())
    chosen = _some(positions * len(entering), sampling)
    example, remaining = chosen // positions, chosen % positions
    index: list[Tensor] = []
    for i in reversed(range(ndim)):
        index.insert(0, remaining % sizes[i] * stride[i])
        remaining = remaining // sizes[i]
    offsets = torch.cartesian_prod(*(torch.arange(k) * d for k, d in zip(kernel, dilation, strict=True))).view(-1, ndim)
    indices = [index[i][:, None] + offsets[:, i] for i in range(ndim)]
    picked: Any = (example[:, None], slice(None), *indices)
    patches = padded[picked]  # [rows, kernel, channels]
    return patches.mT.flatten(1), chosen, positions * len(entering)


def _given(call: Call, position: int, name: str, default: Any) -> Any:
    return call.kwargs.get(name, call.args[position] if len(call.args) > position else default)


def _tuple(value: Any, ndim: int) -> Any:
    if isinstance(value, str):
        return value
    return (
        tuple(value)
        if isinstance(value, list | tuple) and len(value) == ndim
        else (value if not isinstance(value, list | tuple) else value[0],) * ndim
    )
