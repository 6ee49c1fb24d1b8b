"""What enters a block of a network: the network run up to there, and its features kept in bounded memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from paramtrans.api.context import PROBES_AT_ONCE, Context, Entering
from paramtrans.errors import DataError, ParamtransError, SpecMismatch, StoreError
from paramtrans.utils import memory
from paramtrans.utils.boundary import reason

Inputs: TypeAlias = "Tensor | Mapping[str, Any] | list[Any] | tuple[Any, ...]"
"""What a network is called with: a tensor, keyword arguments, or a list whose first item it is, as loaders give."""


class NamedInputs(dict[str, Any]):
    """Keyword arguments of which it is known what has an entry for each example; none has: all are one example."""

    def __init__(self, inputs: Mapping[str, Any], per_example: Iterable[str]) -> None:
        super().__init__(inputs)
        self.per_example = frozenset(per_example)


BYTES_IN_MEMORY = 2**28
"""Features beyond this size wait in a temporary file."""


class Reached(BaseException):
    """Ends a forward pass; no `except Exception` of a network's own code may catch it."""


class Spool:
    """Tensors in order, read as often as wanted; in memory up to a limit, in temporary files beyond."""

    def __init__(self, limit: int = BYTES_IN_MEMORY) -> None:
        self._left, self._held = limit, list[Tensor | Path]()
        self.examples = 0
        """Entries of the first axes of all tensors together."""
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def add(self, tensor: Tensor) -> None:
        """Keep a tensor behind those before it."""
        self.examples += len(tensor)
        self._left -= tensor.nbytes
        if self._left >= 0:
            self._held.append(tensor.clone())
            return
        try:
            self._folder = self._folder or tempfile.TemporaryDirectory(prefix="paramtrans-")
            path = Path(self._folder.name) / f"{len(self._held)}.safetensors"
            save_file({"features": tensor.contiguous().cpu()}, path)
        except (OSError, SafetensorError) as error:
            place = self._folder.name if self._folder else "temporary files"
            raise StoreError(
                f"{place}: features cannot be kept there: {reason(error)}; free space, let TMPDIR name another folder, "
                "or give fewer calibration inputs"
            ) from error
        self._held.append(path)

    def __iter__(self) -> Iterator[Tensor]:
        for held in self._held:
            yield held if isinstance(held, Tensor) else load_file(held)["features"]


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
            for one, other in pairs:
                yield Entering(one[None].to(self.device), other[None].to(self.device))


@torch.no_grad()
def entering(network: nn.Module, path: str, batches: Iterable[Inputs]) -> Spool:
    """What enters the layer at `path` for each batch; the network is run up to there and no further."""
    spool = Spool()

    def stop(_: nn.Module, given: tuple[Any, ...]) -> None:
        spool.add(given[0].detach())
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
    """PyTorch's fast path, which passes by the layers of a transformer, left out; these hooks removed in the end."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for handle in handles:
            handle.remove()


@torch.no_grad()
def shapes_entering(network: nn.Module, paths: Iterable[str], batch: Inputs) -> dict[str, tuple[int, ...]]:
    """Shape of what enters each of these layers for the first example of a batch, `[1, ...]`."""
    found: dict[str, tuple[int, ...]] = {}

    def look_at(path: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda _, given: found.__setitem__(path, tuple(given[0].shape))

    handles = [network.get_submodule(path).register_forward_pre_hook(look_at(path)) for path in paths]
    with every_layer(handles):
        call(network, first_examples(batch, 1))
    return found


def call(network: nn.Module, batch: Inputs) -> Any:
    """The network's output for a batch, which it may change; raises `DataError` where it does not take it."""
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    first, named = arguments(batch)
    try:
        with memory.out_of_memory_hint("running the network", "give smaller batches of calibration inputs"):
            return network(
                *(tensor.to(device, copy=True) for tensor in first),
                **{k: v.to(device, copy=True) if isinstance(v, Tensor) else v for k, v in named.items()},
            )
    except ParamtransError:
        raise
    except Exception as error:
        what = ", ".join([*map(_described, first), *(f"{name} {_described(one)}" for name, one in named.items())])
        raise DataError(
            f"the network does not take the calibration inputs ({what}): {type(error).__name__}: {reason(error)}"
        ) from error


@torch.no_grad()
def check_repeatable(network: nn.Module, batches: Iterable[Inputs]) -> None:
    """Raise `DataError` for a network in eval mode that gives something else the second time: it draws at random, and
    what it computes before and after could not be compared."""
    batch = next(iter(batches), None)
    if batch is None:
        return
    once, twice = (tensors_in(call(network, first_examples(batch, 2))) for _ in range(2))
    if len(once) != len(twice) or any(not torch.equal(a, b) for a, b in zip(once, twice, strict=True)):
        if all(torch.allclose(a, b, rtol=1e-3, atol=1e-5, equal_nan=True) for a, b in zip(once, twice, strict=False)):
            return  # sums in another order
        raise DataError(
            "the network gives something else each time, also in eval mode: it draws at random, so what it computes "
            "before and after cannot be compared; take the random part out, or translate the parts before it alone"
        )


def tensors_in(output: Any) -> list[Tensor]:
    """The tensors of what a network gives."""
    if isinstance(output, Tensor):
        return [output]
    inside = output.values() if isinstance(output, Mapping) else output if isinstance(output, list | tuple) else ()
    return [tensor for one in inside for tensor in tensors_in(one)]


def in_batches(given: Iterable[Inputs] | Tensor | Mapping[str, Any]) -> Iterable[Inputs]:
    """Calibration inputs that can be gone through again and again; a tensor or a dictionary is one batch.

    Raises `DataError` for what is no batches of examples, or gives others each time.
    """
    if isinstance(given, Tensor | Mapping):
        return in_batches([given])
    if not isinstance(given, Iterable):
        raise DataError(f"calibrate: takes batches of inputs, not {type(given).__name__}; give a list of tensors")
    batches = list(given) if isinstance(given, Iterator) else given
    first, again = (next(iter(batches), None) for _ in range(2))
    if first is not None and again is not None:
        _check_batch(first, again)
    return batches


def _check_batch(first: Inputs, again: Inputs) -> None:
    """Raise `DataError` for a batch that nothing can be learned from, or that is another the second time."""
    masked = len(_tensors(first)) > 1  # minus infinity is what masks of attention hold
    for one, other in zip(_tensors(first), _tensors(again), strict=False):
        if not one.numel():
            raise DataError("calibrate: the first batch is empty")
        if one.is_meta:
            raise DataError("calibrate: the inputs have no values (device meta)")
        if one.is_floating_point() and not (one.isfinite() | (one == -torch.inf if masked else False)).all():
            raise DataError("calibrate: the inputs hold values that are not finite")
        if not torch.equal(one, other):
            raise DataError("calibrate: gives other inputs each time, as a loader that shuffles; give list(loader)")


def first_examples(batch: Inputs, count: int) -> Inputs:
    """A batch of the first few examples of another."""
    return pick_examples(batch, slice(count))


def pick_examples(batch: Inputs, chosen: slice | Tensor) -> Inputs:
    """A batch of some examples of another: of every tensor that has an entry for each."""
    if isinstance(batch, Mapping):
        names = per_example(batch)
        picked = {name: value[chosen] if name in names else value for name, value in batch.items()}
        return NamedInputs(picked, names) if isinstance(batch, NamedInputs) else picked
    return (batch if isinstance(batch, Tensor) else batch[0])[chosen]


def arguments(batch: Inputs) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """What a network is called with: by position, and by name. Raises `DataError` for no batch of inputs."""
    if isinstance(batch, Mapping):
        return (), dict(batch)
    first = batch[0] if isinstance(batch, list | tuple) and batch else batch
    if not isinstance(first, Tensor):
        found = type(first).__name__
        raise DataError(f"calibrate: a batch is a tensor, a dictionary, or a list that begins with one, not {found}")
    return (first,), {}


def length(batch: Inputs) -> int:
    """Examples in a batch: the first axis of its first tensor that has an entry for each."""
    names = batch.per_example if isinstance(batch, NamedInputs) else None
    tensors = _tensors(batch) if names is None else [v for k, v in batch.items() if k in names]  # type: ignore[union-attr]
    tensors = [tensor for tensor in tensors if tensor.ndim]
    return len(tensors[0]) if tensors else 1


def per_example(batch: Mapping[str, Any]) -> frozenset[str]:
    """Keyword arguments with an entry for each example: where it is not known, all that are as long as the first."""
    if isinstance(batch, NamedInputs):
        return batch.per_example
    size = length(batch)
    return frozenset(k for k, v in batch.items() if isinstance(v, Tensor) and v.ndim and len(v) == size)


def _tensors(batch: Inputs) -> list[Tensor]:
    first, named = arguments(batch)
    return [value for value in (*first, *named.values()) if isinstance(value, Tensor)]


def _described(value: Any) -> str:
    """Shape and type of what a network is given."""
    return f"{list(value.shape)} {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
