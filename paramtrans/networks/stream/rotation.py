"""A network whose residual streams are rotated into their principal axes; its outputs are the same."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from paramtrans.errors import SpecMismatch
from paramtrans.networks.forward.activations import Inputs, arguments as inputs_of
from paramtrans.networks.graph.capture import Arguments
from paramtrans.networks.graph.groups import Analysis, analyse
from paramtrans.networks.graph.masked import in_precision
from paramtrans.networks.graph.proof import largest_difference, named_tensors, run
from paramtrans.networks.stream.axes import principal_axes, second_moments
from paramtrans.networks.stream.contacts import Contacts, Refused, TensorAxis
from paramtrans.networks.stream.finding import contacts, streams
from paramtrans.networks.stream.folding import fold
from paramtrans.networks.stream.modules import ModuleChange
from paramtrans.plugins.manager import components
from paramtrans.plugins.registry import Registry
from paramtrans.utils.precision import HALF

log = logging.getLogger(__name__)

TOLERANCE = 1e-4
"""Largest difference of outputs in float32, relative to the largest output."""
FIXING = "outputs, hooks and numbers that its code makes"


@dataclass(frozen=True)
class RotatedStream:
    """A stream in the basis of its principal axes."""

    axes: tuple[TensorAxis, ...]
    """Axes of tensors that its units lie along, in the rotated network; norms aside."""
    energies: Tensor
    """Mean square of each unit over what layers read, every row brought to a mean square of one: `[units]`,
    decreasing."""


@dataclass(frozen=True)
class Rotated:
    """A network with rotated streams."""

    network: nn.Module
    streams: tuple[RotatedStream, ...]
    changes: tuple[ModuleChange, ...]
    """Modules that are others than before, for `repeat`."""
    difference: float
    """Largest difference of outputs in float32, relative to the largest output."""
    refused: tuple[str, ...]
    """Why other streams stay in their basis."""


def rotated(
    network: nn.Module, arguments: Arguments, batches: Iterable[Inputs], registry: Registry | None = None
) -> Rotated:
    """A copy of a network with its residual streams in the basis of their principal axes, most energy first.

    It computes what the network does: norms give their weights to the layers that read them, LayerNorms become
    RMSNorms, and all that writes or reads a stream is multiplied by one orthogonal matrix (SliceGPT, arXiv
    2401.15024; here a single one, so that the network's own code stays). Flags, hooks and precision stay.

    Args:
        network: In eval mode; it is not changed.
        arguments: What it is called with, by position and by name; two examples are enough.
        batches: Inputs whose axes are taken, gone through once.
        registry: Plugins whose configs follow; by default those that are installed.

    Returns:
        The copy, with what is known of its streams.

    Raises:
        SpecMismatch: no stream can be rotated; the message says why and names the line of the network's code.
        DataError: the network does not take the batches.

    >>> rotated(model, ((), {"input_ids": tokens}), [tokens]).streams[0].energies  # doctest: +SKIP
    """
    full, arguments = _full(copy.deepcopy(network)).eval(), in_precision(arguments, torch.float32)
    analysis = analyse(full, arguments)
    outputs, changes, refused = run(full, analysis.program), list[ModuleChange](), list[str]()
    kept: list[frozenset[TensorAxis]] = []
    for stream_contacts in _contacts(analysis, refused):
        try:
            changes += fold(full, analysis.program, stream_contacts, registry or components())
            kept.append(frozenset(stream_contacts.writes))
        except Refused as error:
            refused.append(str(error))
    if not kept:
        reason = "; ".join(dict.fromkeys(refused)) or f"it has none that is free of {FIXING}"
        if isinstance(network, GraphModule):
            reason += "; a captured program has no norms that are modules: rotate the network that it was captured of"
        raise SpecMismatch(f"stream: no residual stream of this network can be rotated: {reason}")
    analysis = analyse(full, arguments)
    folded = [of_stream for of_stream in _contacts(analysis, []) if frozenset(of_stream.writes) in kept]
    rotated_streams = _rotate(full, folded, batches)
    difference = largest_difference(outputs, run(full, analysis.program))
    if not difference <= TOLERANCE:
        raise SpecMismatch(
            f"stream: the rotated network gives something else (by {difference:.1e} of its largest output)"
        )
    return Rotated(_as_before(full, network), rotated_streams, tuple(changes), difference, tuple(refused))


def _contacts(analysis: Analysis, refused: list[str]) -> list[Contacts]:
    """What touches each of the streams that can be rotated; why others cannot is added to `refused`."""
    possible = []
    for stream in streams(analysis):
        try:
            possible.append(contacts(analysis, stream))
        except Refused as error:
            refused.append(str(error))
    return possible


@torch.no_grad()
def _rotate(network: nn.Module, folded: list[Contacts], batches: Iterable[Inputs]) -> tuple[RotatedStream, ...]:
    """Multiply all that touches streams, whose norms have no weights, by the principal axes of each."""
    tensors = named_tensors(network)
    readers = {id(tensors[read.tensor]): str(i) for i, touching in enumerate(folded) for read in touching.reads}
    sizes = {str(i): touching.stream.size for i, touching in enumerate(folded)}
    moments = second_moments(network, map(_batch_in_full, batches), readers, sizes)
    rotated_streams = []
    for i, touching in enumerate(folded):
        if not bool(moments[str(i)].any()):
            raise SpecMismatch("stream: no calibration input reaches a layer that reads the stream")
        energies, axes = principal_axes(moments[str(i)])
        for name, axis in touching.rotating:
            values = tensors[name].double().movedim(axis, -1) @ axes.to(tensors[name].device)
            tensors[name].copy_(values.movedim(-1, axis))
        rotated_streams.append(RotatedStream(tuple(touching.rotating), energies.cpu()))
    return tuple(rotated_streams)


def _batch_in_full(batch: Inputs) -> Inputs:
    positional, named = in_precision(inputs_of(batch), torch.float32)
    return named or positional[0]  # type: ignore[no-any-return]


def _full(network: nn.Module) -> nn.Module:
    """A network with its tensors of half precision in full; no other tensor changes."""
    for tensor in [*network.parameters(), *network.buffers()]:
        if tensor.dtype in HALF:
            tensor.data = tensor.data.float()
    return network


def _as_before(network: nn.Module, before: nn.Module) -> nn.Module:
    """A rotated network in the precision, and with the flags for training, that it had."""
    dtypes = {name: tensor.dtype for name, tensor in named_tensors(before).items()}
    for name, tensor in named_tensors(network).items():
        tensor.data = tensor.data.to(dtypes.get(name, dtypes.get(f"{name.rpartition('.')[0]}.weight", tensor.dtype)))
    for module, module_before in zip(network.modules(), before.modules(), strict=True):
        module.training = module_before.training
    return network
