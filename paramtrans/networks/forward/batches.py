"""Calibration inputs as a network takes them: without labels, single examples stacked, and what is no batch told apart.

Which tensors have an entry for each example is seen by what the network gives for fewer of them.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations, islice
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from paramtrans.errors import DataError, SpecMismatch
from paramtrans.networks.forward.activations import Inputs, NamedInputs, call, input_tensors, length, pick_examples
from paramtrans.networks.forward.outputs import tensors_in
from paramtrans.networks.forward.programs import fixed_size
from paramtrans.ops.chunks import chunks, real_parts

AT_ONCE = 32
"""Single examples that are stacked to a batch."""
TRIED = 3
"""Examples of the first batch that the network is tried with."""

log = logging.getLogger(__name__)


def as_taken(network: nn.Module, batches: Iterable[Inputs], tell: bool = True) -> Iterable[Inputs]:
    """Batches of which some examples can be taken.

    Args:
        network: In eval mode.
        batches: Inputs, which can be gone through as often as wanted.
        tell: Whether to warn of what is left out.

    Returns:
        The same where each entry of a first axis is an example; `NamedInputs` where that is so of some tensors alone,
        or where a batch is one example, as of a network that takes batches of one size; stacks of single examples.

    Raises:
        DataError: a batch is of another kind than the first.
        SpecMismatch: the network has no values.
    """
    check_has_values(network)
    batches = in_size(network, batches)
    if (first := next(iter(batches), None)) is None:
        return batches
    tensors = input_tensors(first).values()
    if not tensors:
        raise DataError("calibrate: there is no tensor in the first batch; give what the network takes")
    for tensor in tensors:
        if not tensor.ndim:
            raise DataError("calibrate: the inputs are single numbers; a batch has a first axis, of its examples")
    taken = _accepted(network, first)
    if tell and isinstance(first, Mapping) and (others := [name for name in first if name not in taken]):
        log.warning("calibrate: %s is left out, which the network does not take", ", ".join(map(str, others)))
    second = next(islice(batches, 1, None), None)
    way, names = _way(network, _cut(first, taken), None if second is None else _cut(second, taken))
    if way == "examples" and (not isinstance(first, Mapping) or (names is None and len(taken) == len(first))):
        return _Alike(batches)
    named = way == "single" or isinstance(first, Mapping)
    return _Batches(_Alike(batches), taken, way, names, "" if named else _first_name(network))


def check_has_values(network: nn.Module) -> None:
    """Raise `SpecMismatch` for a network whose tensors have no values, or no shapes yet.

    Args:
        network: The network.
    """
    tensors = [*network.parameters(), *network.buffers()]
    if any(is_lazy(tensor) for tensor in tensors):
        raise SpecMismatch("the network has layers that get their shapes in their first pass; run it once before")
    if any(tensor.is_meta for tensor in tensors):
        raise SpecMismatch("the network has no values (device meta); load its parameters first")


def in_size(network: nn.Module, batches: Iterable[Inputs]) -> Iterable[Inputs]:
    """Batches cut to the number of examples that a captured program was exported for; examples left over are dropped.

    Args:
        network: The network; of others than such programs all batches stay.
        batches: Inputs.
    """
    size = fixed_size(network)
    return batches if size is None or isinstance(batches, _InSize) else _InSize(batches, size)


Way = Literal["examples", "single", "whole"]


def _way(network: nn.Module, first: Inputs, second: Inputs | None) -> tuple[Way, frozenset[str] | None]:
    """What a batch is, and which tensors have an entry for each example; None: all that are as long as the first."""
    tensors = input_tensors(first)
    if not tensors:
        return "examples", None
    longest = len(next(iter(tensors.values())))
    default = frozenset(name for name, tensor in tensors.items() if len(tensor) == longest)
    for names in _candidates(tensors):
        if _separate(network, first, names):
            return "examples", None if names == default else names
    if second is not None and _single(network, first, second):
        return "single", None
    if _outputs(network, _picked(first, default, 2)) is not None:
        return "examples", None
    with torch.no_grad():
        call(network, first)  # what is wrong is told of the inputs as they were given
    return "whole", frozenset()


def _candidates(tensors: Mapping[str, Tensor]) -> Iterator[frozenset[str]]:
    """Sets of tensors that may have an entry for each example, the likeliest first."""
    for size in dict.fromkeys(len(tensor) for tensor in tensors.values()):
        names = [name for name, tensor in tensors.items() if len(tensor) == size][:6]
        for count in range(len(names), 0, -1):
            yield from map(frozenset, combinations(names, count))


def _separate(network: nn.Module, batch: Inputs, names: frozenset[str]) -> bool:
    """Whether fewer examples give the first of what more of them give."""
    count = min(len(input_tensors(batch)[min(names)]), TRIED)
    some = _outputs(network, _picked(batch, names, count))
    if some is None or all(not tensor.ndim or len(tensor) != count for tensor in some):
        return False
    if count == 1:
        return True
    fewer = _outputs(network, _picked(batch, names, count - 1))
    return fewer is not None and len(some) == len(fewer) and all(map(_begins, some, fewer, [count] * len(some)))


def _begins(more: Tensor, fewer: Tensor, count: int) -> bool:
    """Whether what is given for one example fewer is the beginning of what is given for all, or is the same."""
    if more.ndim and len(more) == count and fewer.ndim == more.ndim and len(fewer) == count - 1:
        more = more[:-1]
    return more.shape == fewer.shape and all(
        torch.allclose(a.double(), b.double(), 1e-2, 1e-3, equal_nan=True)
        for a, b in chunks(real_parts(more), real_parts(fewer))
    )


def _single(network: nn.Module, first: Inputs, second: Inputs) -> bool:
    """Whether batches are single examples, which the network takes stacked, and not as they are."""
    tensors, others = input_tensors(first), input_tensors(second)
    if {name: tensor.shape for name, tensor in tensors.items()} != {name: t.shape for name, t in others.items()}:
        return False
    both = {name: torch.stack([tensors[name], others[name]]) for name in tensors}
    return _separate(network, _with(first, both), frozenset(both))


def _outputs(network: nn.Module, batch: Inputs) -> list[Tensor] | None:
    """What a network gives, or None where it does not take this."""
    try:
        with torch.no_grad():
            return tensors_in(call(network, batch))
    except DataError:
        return None


def _picked(batch: Inputs, names: frozenset[str], count: int) -> Inputs:
    return _with(batch, {name: tensor[:count] for name, tensor in input_tensors(batch).items() if name in names})


def _with(batch: Inputs, tensors: Mapping[str, Tensor]) -> Inputs:
    """A batch with other tensors."""
    return {**batch, **tensors} if isinstance(batch, Mapping) else tensors[""]


def _accepted(network: nn.Module, batch: Inputs) -> frozenset[str]:
    """Those keyword arguments that a network takes; all where it takes any, or none of them."""
    if not isinstance(batch, Mapping):
        return frozenset()
    parameters = inspect.signature(network.forward).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return frozenset(batch)
    return frozenset(name for name in batch if name in parameters) or frozenset(batch)


def _cut(batch: Inputs, taken: frozenset[str]) -> Inputs:
    return {name: value for name, value in batch.items() if name in taken} if isinstance(batch, Mapping) else batch


def _first_name(network: nn.Module) -> str:
    """What a network calls its first argument."""
    first = next(iter(inspect.signature(network.forward).parameters.values()), None)
    if first is None or first.kind in (first.VAR_POSITIONAL, first.VAR_KEYWORD, first.POSITIONAL_ONLY):
        raise DataError("calibrate: the network takes batches of one size alone; give dictionaries of named arguments")
    return first.name


def is_taken(inputs: object) -> bool:
    """Whether inputs are what `as_taken` gave, and so were looked at before."""
    return isinstance(inputs, _Alike | _Batches)


@dataclass(frozen=True)
class _InSize:
    """Batches of one size, from larger ones."""

    batches: Iterable[Inputs]
    size: int

    def __iter__(self) -> Iterator[Inputs]:
        for batch in self.batches:
            count = length(batch)
            starts = range(0, count - self.size + 1, self.size) if count > self.size else ()
            yield from (pick_examples(batch, slice(start, start + self.size)) for start in starts)
            if not starts:
                yield batch


@dataclass(frozen=True)
class _Alike:
    """Batches that are each of the kind of the first."""

    batches: Iterable[Inputs]
    sums: list[float] = field(default_factory=list)
    """Of the values of each batch, as it was when it was first met."""

    def __iter__(self) -> Iterator[Inputs]:
        kinds: dict[str, tuple[int, torch.dtype]] | None = None
        for number, batch in enumerate(self.batches, 1):
            total = sum(map(_total, input_tensors(batch).values()))
            if number > len(self.sums):
                self.sums.append(total)
            elif total != self.sums[number - 1]:
                raise DataError(f"calibrate: batch {number} is another each time, as of a loader; give list(loader)")
            if not length(batch):
                raise DataError(f"calibrate: batch {number} has no examples; leave it out")
            kinds_here = {name: (tensor.ndim, tensor.dtype) for name, tensor in input_tensors(batch).items()}
            kinds = kinds or kinds_here
            if any(kinds_here[name] != kinds[name] for name in kinds_here.keys() & kinds.keys()):
                raise DataError(
                    f"calibrate: batch {number} is of another kind than the first ({_said(kinds_here)}, not "
                    f"{_said(kinds)}); inputs with labels are a list of pairs: [(inputs, labels)]"
                )
            yield batch


def _total(tensor: Tensor) -> float:
    values = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return float(values.double().nan_to_num().sum())


def _said(kinds: Mapping[str, tuple[int, torch.dtype]]) -> str:
    return ", ".join(f"{name} {axes} axes of {dtype}".lstrip() for name, (axes, dtype) in kinds.items())


@dataclass(frozen=True)
class _Batches:
    """Batches as a network takes them."""

    batches: Iterable[Inputs]
    taken: frozenset[str]
    way: Way
    names: frozenset[str] | None
    first_name: str

    def __iter__(self) -> Iterator[Inputs]:
        if self.way == "single":
            yield from self._stacked()
            return
        for batch in self.batches:
            inputs = (
                _cut(batch, self.taken) if isinstance(batch, Mapping) else {self.first_name: input_tensors(batch)[""]}
            )
            yield inputs if self.names is None else NamedInputs(inputs, self.names)  # type: ignore[arg-type]

    def _stacked(self) -> Iterator[Inputs]:
        examples = iter(self.batches)
        while stack := list(islice(examples, AT_ONCE)):
            tensors_of = [input_tensors(_cut(example, self.taken)) for example in stack]
            shapes = {name: {tensors[name].shape for tensors in tensors_of} for name in tensors_of[0]}
            if any(len(shapes_of) > 1 for shapes_of in shapes.values()):
                raise DataError("calibrate: single examples have different shapes; give batches of one shape each")
            stacked = {name: torch.stack([tensors[name] for tensors in tensors_of]) for name in tensors_of[0]}
            yield _with(_cut(stack[0], self.taken), stacked)
