"""What layers read of calibration inputs in passes of a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from paramtrans.networks.forward.activations import Inputs, call
from paramtrans.networks.forward.examples import Examples
from paramtrans.networks.forward.lockstep import AddedTo, Call, Forward, Place, Replayed
from paramtrans.networks.graph.readers import ReaderLayer, Rows, Sampling, rows


def forward_pass(
    network: nn.Module,
    batch: Inputs,
    tensors: Mapping[str, Tensor],
    layers: Mapping[str, ReaderLayer],
    added_to: Mapping[str, AddedTo] | None = None,
    replays: Mapping[Place, Replayed] | None = None,
) -> Forward:
    """One pass for `Lockstep`.

    Args:
        network: In eval mode.
        batch: Inputs.
        tensors: Parameters of the network by name.
        layers: Layers to stop at, by the name of their weight.
        added_to: For some of them what their outputs will be added to.
        replays: How later ones of these follow from values before.
    """
    weights = {id(tensors[name]): name for name in layers}
    return Forward(lambda: call(network, batch), weights, added_to or {}, replays or {})


def row_pieces(calls: Sequence[Call], examples: Examples, values: int, seed: int) -> Iterable[Rows]:
    """The rows that a layer reads of the batches that this process passes; examples are counted through all of them.

    Args:
        calls: Of the layer, one for each of these.
        examples: The batches.
        values: Values that the layer reads in the untouched network.
        seed: Draws rows, where there are many.
    """
    for layer_call, batch in zip(calls, examples.passed_here, strict=True):
        of_batch = rows(layer_call, Sampling(batch.size, examples.total, seed + batch.number, values))
        yield replace(of_batch, example=of_batch.example + batch.begin)


def read_values(weight: Tensor, layer: ReaderLayer) -> int:
    """Values that a layer reads."""
    return weight[0].numel() if layer.axis == 1 else len(weight)
