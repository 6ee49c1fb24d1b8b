"""What layers read of calibration inputs in passes of a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from paramtrans.networks.forward.activations import Inputs, call
from paramtrans.networks.forward.examples import Examples
from paramtrans.networks.forward.lockstep import Call
from paramtrans.networks.graph.readers import ReaderLayer, Sampling, rows


def forward_pass(
    network: nn.Module, batch: Inputs, tensors: Mapping[str, Tensor], layers: Mapping[str, ReaderLayer]
) -> tuple[Callable[[], Any], dict[int, str]]:
    return (lambda: call(network, batch)), {id(tensors[name]): name for name in layers}


Piece = tuple[Tensor, Tensor, Tensor]
"""What is read, what the layer gives for it, and whose it is: the example's number among all."""


def row_pieces(calls: Sequence[Call], examples: Examples, values: int, seed: int) -> Iterable[Piece]:
    first = 0
    for number, (one, size) in enumerate(zip(calls, examples.sizes, strict=True)):
        read, given, example = rows(one, Sampling(size, examples.total, seed + number, values))
        yield read, given, example + first
        first += size


def read_values(weight: Tensor, layer: ReaderLayer) -> int:
    """Values that a layer reads."""
    return weight[0].numel() if layer.axis == 1 else len(weight)
