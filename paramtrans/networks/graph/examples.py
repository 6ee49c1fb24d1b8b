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
    """One pass for `Lockstep`: what runs it, and the tensors whose layers it stops at.

    Args:
        network: In eval mode.
        batch: Inputs.
        tensors: Parameters of the network by name.
        layers: Layers to stop at, by the name of their weight.
    """
    return (lambda: call(network, batch)), {id(tensors[name]): name for name in layers}


Piece = tuple[Tensor, Tensor, Tensor]
"""What is read, what the layer gives for it, and whose it is: the example's number among all."""


def row_pieces(calls: Sequence[Call], examples: Examples, values: int, seed: int) -> Iterable[Piece]:
    """The rows that a layer reads of all batches.

    Args:
        calls: Of the layer, one for each batch.
        examples: The batches.
        values: Values that the layer reads in the untouched network.
        seed: Draws rows, where there are many.
    """
    first_example = 0
    for number, (layer_call, size) in enumerate(zip(calls, examples.sizes, strict=True)):
        read, output, example = rows(layer_call, Sampling(size, examples.total, seed + number, values))
        yield read, output, example + first_example
        first_example += size


def read_values(weight: Tensor, layer: ReaderLayer) -> int:
    """Values that a layer reads."""
    return weight[0].numel() if layer.axis == 1 else len(weight)
