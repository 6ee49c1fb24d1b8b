"""Values that a pass comes to later, computed beforehand from those that it has.

The skip of some residual blocks has a convolution of its own, which runs behind the block's last layer. What it gives
is needed when that layer is reached; operations that lead to it are seen in a pass of a few examples, and run ahead.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from paramtrans.networks.forward.lockstep import AddedTo, Place
from paramtrans.networks.forward.outputs import tensors_in
from paramtrans.utils.fast_path import layer_by_layer

NEAR = 1e-5
"""Largest difference to what the pass itself comes to, relative to the largest value."""


@dataclass(frozen=True)
class _From:
    """In place of a tensor: where it is from."""

    place: Place


@dataclass(frozen=True)
class _Operation:
    function: Callable[..., Any]
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    """With `_From` in place of what was computed, and the network's own tensors as they are."""


@dataclass(frozen=True)
class Replay:
    """Operations that lead from values of a pass to a later one."""

    place: Place
    """Of the later value."""
    begins: tuple[Place, ...]
    """Of the values that it is computed from."""
    operations: Mapping[int, _Operation]
    """By their numbers in the pass, in order."""

    def __call__(self, values: Mapping[Place, Tensor]) -> Tensor | None:
        """The later value.

        Args:
            values: Those of the pass so far, by place; they are not changed.

        Returns:
            None where one that it begins with is not among them, or an operation cannot be done with them.
        """
        if not all(place in values for place in self.begins):
            return None
        known = {place: values[place].clone() for place in self.begins}  # some operations work in place

        def valued(leaf: Any) -> Any:
            return known[leaf.place] if isinstance(leaf, _From) else leaf

        try:
            for number, operation in self.operations.items():
                args, kwargs = tree_map(valued, operation.arguments)
                results = tensors_in(operation.function(*args, **kwargs))
                known |= {(number, position): tensor for position, tensor in enumerate(results)}
        except Exception:  # of the network's code, for other sizes than were seen
            return None
        return known.get(self.place)


@torch.no_grad()
def replays_of(
    run: Callable[[], Any], checks: Iterable[Callable[[], Any]], added: Iterable[AddedTo], tensors: Iterable[Tensor]
) -> dict[Place, Replay]:
    """How the values follow that layers' outputs are added to, and that are computed behind them.

    Args:
        run: A pass of the network; a few examples are enough.
        checks: Passes in which replays have to give what the passes come to. Sizes that the network's code computes are
            numbers in a replay, so there should be one for each shape of batches.
        added: What outputs are added to.
        tensors: Parameters and buffers of the network.

    Returns:
        By place; without those that do not follow from values before the layer and the network's own tensors alone, or
        that give something else in a check.
    """
    later = {place: addition.at for addition in added for place in addition.later}
    if not later:
        return {}
    record = _Record(later, {id(tensor) for tensor in tensors})
    _run(run, record)
    replays = {place: replay for place in later if (replay := record.replay(place)) is not None}
    for check in checks:
        checking = _Check(replays, later)
        _run(check, checking)
        replays = {place: replay for place, replay in replays.items() if place in checking.right}
    return replays


def _run(run: Callable[[], Any], watch: TorchFunctionMode) -> None:
    """Run a pass as far as is wanted. Where it raises, as of too few examples, nothing is known of the rest."""
    with suppress(Exception), layer_by_layer(), watch:
        run()


class _Enough(Exception):
    """All wanted values are known."""


class _Record(TorchFunctionMode):
    """Numbers the operations of a pass, and keeps those from which later values follow."""

    def __init__(self, later: Mapping[Place, int], tensors: set[int]) -> None:
        super().__init__()
        self.later, self.tensors, self.number = later, tensors, 0
        self._last = max(number for number, _ in later)
        self._operations: dict[int, _Operation] = {}
        self._made: dict[int, tuple[Place, weakref.ref[Tensor]]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        number, self.number = self.number, self.number + 1
        if any(at < number <= place[0] for place, at in self.later.items()):
            self._operations[number] = _Operation(func, tree_map(self._named, (tuple(args), dict(kwargs or {}))))
        result = func(*args, **(kwargs or {}))
        for position, tensor in enumerate(tensors_in(result)):
            self._made[id(tensor)] = ((number, position), weakref.ref(tensor))
        if number == self._last:
            raise _Enough
        return result

    def _named(self, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or id(leaf) in self.tensors:
            return leaf
        place, tensor = self._made.get(id(leaf), (None, lambda: None))
        return _From(place) if place is not None and tensor() is leaf else _UNKNOWN

    def replay(self, place: Place) -> Replay | None:
        """How a value follows; None where it does not from values before its layer and the network's tensors."""
        at, begins, numbers, open_places = self.later[place], set[Place](), set[int](), [place]
        while open_places:
            current = open_places.pop()
            number = current[0]
            if number < at:
                begins.add(current)
            elif number == at or number not in self._operations:
                return None
            elif number not in numbers:
                numbers.add(number)
                leaves = tree_leaves(self._operations[number].arguments)
                if any(leaf is _UNKNOWN for leaf in leaves):
                    return None
                open_places += [leaf.place for leaf in leaves if isinstance(leaf, _From)]
        return Replay(place, tuple(sorted(begins)), {n: self._operations[n] for n in sorted(numbers)})


_UNKNOWN = object()
"""In place of a tensor of which it is not known where it is from."""


class _Check(TorchFunctionMode):
    """Compares replays with what a pass comes to."""

    def __init__(self, replays: Mapping[Place, Replay], later: Mapping[Place, int]) -> None:
        super().__init__()
        self.replays, self.later, self.number = replays, later, 0
        self.right: set[Place] = set()
        self._last = max((number for number, _ in replays), default=0)
        self._wanted = {begin[0] for replay in replays.values() for begin in replay.begins}
        self._values: dict[Place, Tensor] = {}
        self._replayed: dict[Place, Tensor | None] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        number, self.number = self.number, self.number + 1
        for place, replay in self.replays.items():
            if self.later[place] == number:
                self._replayed[place] = replay(self._values)
        result = func(*args, **(kwargs or {}))
        results = tensors_in(result)
        if number in self._wanted:
            self._values |= {(number, position): tensor for position, tensor in enumerate(results)}
        for place in self._replayed:
            if place[0] == number and _same(self._replayed[place], results[place[1] : place[1] + 1]):
                self.right.add(place)
        if number == self._last:
            raise _Enough
        return result


def _same(replayed: Tensor | None, results: Sequence[Tensor]) -> bool:
    if replayed is None or not results or replayed.shape != results[0].shape:
        return False
    if not replayed.numel():
        return True
    difference = (replayed.double() - results[0].double()).abs().max()
    return bool(difference <= NEAR * results[0].double().abs().max())
