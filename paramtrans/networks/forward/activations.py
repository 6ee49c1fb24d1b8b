"""What enters a block of a network: the network run up to there, and its features kept in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from paramtrans.api.context import PROBES_AT_ONCE, Context, Entering
from paramtrans.errors import DataError, ParamtransError, SpecMismatch
from paramtrans.networks.forward.outputs import tensors_in
from paramtrans.networks.forward.programs import run_quietly, size_hint
from paramtrans.networks.forward.spool import Spool
from paramtrans.utils import memory
from paramtrans.utils.boundary import reason
from paramtrans.utils.fast_path import layer_by_layer

Inputs: TypeAlias = "Tensor | Mapping[str, Any] | list[Any] | tuple[Any, ...]"
"""What a network is called with: a tensor, keyword arguments, or a list whose first item it is, as loaders give."""


class NamedInputs(dict[str, Any]):
    """Keyword arguments of which it is known what has an entry for each example; none has: all are one example."""

    def __init__(self, inputs: Mapping[str, Any], per_example: Iterable[str]) -> None:
        super().__init__(inputs)
        self.per_example = frozenset(per_example)


class Reached(BaseException):
    """Ends a forward pass; no `except Exception` of a network's own code may catch it."""


@dataclass(frozen=True)
class NetworkContext(Context):
    """What stands around one block of a network: what enters it, behind translated blocks and in the untouched network.

    Both hold batches of `[n, ...]`, in the same order; `reached` and `original` may be the same.
    """

    reached: Spool | None = field(default=None, kw_only=True)
    original: Spool | None = field(default=None, kw_only=True)
    device: torch.device | None = field(default=None, kw_only=True)

    @property
    def count(self) -> int:
        return 0 if self.reached is None else self.reached.examples

    def entering(self) -> Iterator[Entering]:
        if self.reached is None or self.original is None:
            raise SpecMismatch("this translator compares what blocks compute; give it a context with inputs (probes)")
        for reached, original in zip(self.reached, self.original, strict=True):
            pairs = zip(reached.split(PROBES_AT_ONCE), original.split(PROBES_AT_ONCE), strict=True)
            for from_translated, from_original in pairs:
                yield Entering(from_translated[None].to(self.device), from_original[None].to(self.device))


@torch.no_grad()
def entering(network: nn.Module, path: str, batches: Iterable[Inputs]) -> Spool:
    """What enters a layer, for each batch; the network is run up to there and no further.

    Args:
        network: In eval mode.
        path: Of the layer.
        batches: Inputs.

    Returns:
        Features `[n, ...]`, batch by batch.

    Raises:
        SpecMismatch: a batch does not reach the layer.
    """
    spool = Spool()

    def stop(_: nn.Module, args: tuple[Any, ...]) -> None:
        spool.add(args[0].detach())
        raise Reached

    with every_layer([network.get_submodule(path).register_forward_pre_hook(stop)]):
        for batch in batches:
            try:
                call(network, batch)
            except Reached:
                continue
            raise SpecMismatch(f"{path} is not reached by every calibration batch, so it cannot be translated")
    return spool


@contextmanager
def every_layer(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Run networks without PyTorch's fast path, which skips the layers of a transformer.

    Args:
        handles: Hooks that are removed in the end.
    """
    try:
        with layer_by_layer():
            yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def shapes_entering(network: nn.Module, paths: Iterable[str], batch: Inputs) -> dict[str, tuple[int, ...]]:
    """Shape of what enters each of these layers for one example.

    Args:
        network: In eval mode.
        paths: Of the layers.
        batch: Inputs, of which one is used.

    Returns:
        By path, `[1, ...]` each.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def look_at(path: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda _, args: shapes.__setitem__(path, tuple(args[0].shape))

    handles = [network.get_submodule(path).register_forward_pre_hook(look_at(path)) for path in paths]
    with every_layer(handles):
        call(network, first_examples(batch, 1))
    return shapes


def call(network: nn.Module, batch: Inputs) -> Any:
    """The network's output for a batch.

    Args:
        network: Any.
        batch: Inputs; the network gets a copy, which it may change.

    Raises:
        DataError: the network does not take the inputs.
    """
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    positional, named = arguments(batch)
    try:
        with memory.out_of_memory_hint("running the network", "give smaller batches of calibration inputs"):
            return run_quietly(
                network,
                *(tensor.to(device, copy=True) for tensor in positional),
                **{k: v.to(device, copy=True) if isinstance(v, Tensor) else v for k, v in named.items()},
            )
    except ParamtransError:
        raise
    except Exception as error:
        described = ", ".join(
            [*map(_described, positional), *(f"{name} {_described(value)}" for name, value in named.items())]
        )
        why = f"{type(error).__name__}: {reason(error)}{size_hint(network)}"
        raise DataError(f"the network does not take the inputs ({described}): {why}") from error


@torch.no_grad()
def check_repeatable(network: nn.Module, batches: Iterable[Inputs]) -> None:
    """Check that a network gives numbers, and the same for the same inputs; else nothing could be compared.

    Args:
        network: In eval mode.
        batches: Inputs; two examples of the first batch are tried.

    Raises:
        DataError: the network gives something else the second time, or NaN because of its parameters.
    """
    batch = next(iter(batches), None)
    if batch is None:
        return
    outputs, repeated = (tensors_in(call(network, first_examples(batch, 2))) for _ in range(2))
    if any(bool(output.isnan().any()) for output in outputs) and (wrong := _without_numbers(network)):
        raise DataError(
            f"the network gives NaN before anything is translated, as {wrong} holds NaN; repair the parameters"
        )
    if len(outputs) != len(repeated) or any(not torch.equal(a, b) for a, b in zip(outputs, repeated, strict=True)):
        if all(
            torch.allclose(a, b, rtol=1e-3, atol=1e-5, equal_nan=True) for a, b in zip(outputs, repeated, strict=False)
        ):
            return  # sums in another order
        raise DataError(
            "the network gives something else each time, also in eval mode: it draws at random, so what it computes "
            "before and after cannot be compared; take the random part out, or translate the parts before it alone"
        )


def _without_numbers(network: nn.Module) -> str | None:
    """The first tensor of a network that holds NaN."""
    tensors = (*network.named_parameters(), *network.named_buffers())
    return next((name for name, tensor in tensors if bool(tensor.isnan().any())), None)


def in_batches(inputs: Iterable[Inputs] | Tensor | Mapping[str, Any]) -> Iterable[Inputs]:
    """Calibration inputs as batches that can be gone through again and again.

    Args:
        inputs: Batches; a tensor or a dictionary is one batch.

    Raises:
        DataError: these are no batches of examples, or others each time.
    """
    if isinstance(inputs, Tensor | Mapping):
        return in_batches([inputs])
    if not isinstance(inputs, Iterable):
        raise DataError(f"calibrate: takes batches of inputs, not {type(inputs).__name__}; give a list of tensors")
    batches = list(inputs) if isinstance(inputs, Iterator) else inputs
    for batch, repeated in zip(islice(batches, 1), islice(batches, 1), strict=False):
        _check_batch(batch, repeated)
    return batches


def _check_batch(batch: Inputs, repeated: Inputs) -> None:
    """Raise `DataError` for a batch that nothing can be learned from, or that is another the second time."""
    masked = len(input_tensors(batch)) > 1  # minus infinity is what masks of attention hold
    for tensor, again in zip(input_tensors(batch).values(), input_tensors(repeated).values(), strict=False):
        if not tensor.numel():
            raise DataError("calibrate: the first batch is empty")
        if tensor.is_meta:
            raise DataError("calibrate: the inputs have no values (device meta)")
        if tensor.layout is not torch.strided:
            raise DataError(f"calibrate: the inputs are kept as {tensor.layout}; give to_dense() of them")
        allowed = tensor == -torch.inf if masked else torch.zeros_like(tensor, dtype=torch.bool)
        if tensor.is_floating_point() and not (tensor.isfinite() | allowed).all():
            raise DataError("calibrate: the inputs hold values that are not finite")
        if not torch.equal(tensor, again):
            raise DataError("calibrate: gives other inputs each time, as a loader that shuffles; give list(loader)")


def first_examples(batch: Inputs, count: int) -> Inputs:
    """A batch of the first few examples of another."""
    return pick_examples(batch, slice(count))


def pick_examples(batch: Inputs, chosen: slice | Tensor) -> Inputs:
    """A batch of some examples of another.

    Args:
        batch: Inputs; of a dictionary, every tensor that has an entry for each example is cut.
        chosen: Numbers of the examples.
    """
    if isinstance(batch, Mapping):
        names = per_example(batch)
        picked = {name: value[chosen] if name in names else value for name, value in batch.items()}
        return NamedInputs(picked, names) if isinstance(batch, NamedInputs) else picked
    return (batch if isinstance(batch, Tensor) else batch[0])[chosen]


def arguments(batch: Inputs) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """What a network is called with: by position, and by name.

    Raises:
        DataError: this is no batch of inputs.
    """
    if isinstance(batch, Mapping):
        return (), dict(batch)
    tensor = batch[0] if isinstance(batch, list | tuple) and batch else batch
    if not isinstance(tensor, Tensor):
        kind = type(tensor).__name__
        raise DataError(f"calibrate: a batch is a tensor, a dictionary, or a list that begins with one, not {kind}")
    return (tensor,), {}


def length(batch: Inputs) -> int:
    """Examples in a batch: the first axis of its first tensor that has an entry for each."""
    names = batch.per_example if isinstance(batch, NamedInputs) else None
    named = input_tensors(batch)
    tensors = [tensor for name, tensor in named.items() if tensor.ndim and (names is None or name in names)]
    return len(tensors[0]) if tensors else 1


def per_example(batch: Mapping[str, Any]) -> frozenset[str]:
    """Keyword arguments with an entry for each example: where it is not known, all that are as long as the first."""
    if isinstance(batch, NamedInputs):
        return batch.per_example
    size = length(batch)
    return frozenset(k for k, v in batch.items() if isinstance(v, Tensor) and v.ndim and len(v) == size)


def input_tensors(batch: Inputs) -> dict[str, Tensor]:
    """The tensors of a batch by name; that given by position is ""."""
    positional, named = arguments(batch)
    return {"": positional[0]} if positional else {k: v for k, v in named.items() if isinstance(v, Tensor)}


def _described(value: Any) -> str:
    """Shape and type of what a network is given."""
    return f"{list(value.shape)} {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
