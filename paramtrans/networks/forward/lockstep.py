"""Several passes of networks at once, which wait for each other at some of their layers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from paramtrans.networks.forward.outputs import tensors_in
from paramtrans.utils import memory
from paramtrans.utils.fast_path import layer_by_layer

Place = tuple[int, int]
"""Of a value in a pass: the number of the operation that gives it, and which of its results it is."""


@dataclass(frozen=True)
class AddedTo:
    """What the output of a layer is added to."""

    at: int
    """Number of the layer's operation in a pass."""
    places: tuple[Place, ...]
    """Of what is computed before the layer."""
    later: tuple[Place, ...] = ()
    """Of what is computed behind the layer, from none that has weights by which layers are known."""


class Replayed(Protocol):
    """A value that is computed before the pass comes to it."""

    @property
    def begins(self) -> Sequence[Place]:
        """Of the values that it is computed from."""

    def __call__(self, values: Mapping[Place, Tensor]) -> Tensor | None:
        """The value, from those of the pass so far; None where these are not enough."""


@dataclass(frozen=True)
class Forward:
    """A pass of a network."""

    run: Callable[[], Any]
    layers: Mapping[int, str]
    """Tensors whose layers it stops at: their `id`, and a name."""
    added_to: Mapping[str, AddedTo] = field(default_factory=dict)
    """For some of the layers what their outputs will be added to."""
    replays: Mapping[Place, Replayed] = field(default_factory=dict)
    """How later ones of these follow from values before."""

    def watched(self, reach: Callable[[Call], None]) -> Any:
        """Run it; each of its layers is reached before it is computed."""
        with _Watch(self, reach):
            return self.run()


@dataclass
class Call:
    """A layer that is about to be computed in one of the passes."""

    layer: str
    """Its name, as the pass was given it."""
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    position: int
    """The position of the layer's weight among the arguments."""
    added_to: Tensor | None = None
    """What its output will be added to, where that is known."""
    replayed: bool = False
    """Whether what is computed behind the layer is in it."""


class _Watch(TorchFunctionMode):
    """Calls back wherever an operation reads one of some weights, with what its output will be added to."""

    def __init__(self, forward: Forward, reach: Callable[[Call], None]) -> None:
        super().__init__()
        self.layers, self.added_to, self.reach = forward.layers, forward.added_to, reach
        self.replays, self.number = forward.replays, 0
        self._needed: dict[Place, int] = {}  # until which operation
        for added in sorted(forward.added_to.values(), key=lambda added: added.at):
            begins = [begin for place in added.later if place in self.replays for begin in self.replays[place].begins]
            self._needed |= dict.fromkeys((*added.places, *begins), added.at)
        self._operations = {number for number, _ in self._needed}
        self._held: dict[Place, Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        number, self.number = self.number, self.number + 1
        args, kwargs = positional(func, args, kwargs or {})
        position = weight_position(func, args, self.layers)
        if position is not None:
            layer = self.layers[id(args[position])]
            added, replayed = self._added(layer, number)
            self.reach(Call(layer, func, args, kwargs, position, added, replayed))
        result = func(*args, **kwargs)
        if number in self._operations:
            held = {(number, i): tensor for i, tensor in enumerate(tensors_in(result))}
            self._held |= {place: tensor for place, tensor in held.items() if place in self._needed}
        return result

    def _added(self, layer: str, number: int) -> tuple[Tensor | None, bool]:
        """The sum of what a layer's output is added to, and whether that has what is computed later in it; None where
        this pass goes another way than the first."""
        added = self.added_to.get(layer)
        if added is None or added.at != number:
            self._forget(number)
            return None, False
        parts = [self._held.get(place) for place in added.places]
        later = [self.replays[place](self._held) for place in added.later if place in self.replays]
        replayed = bool(added.later) and len(later) == len(added.later) and all(value is not None for value in later)
        parts += later if replayed else []
        self._forget(number)
        known = [part for part in parts if part is not None]
        return (sum(known[1:], known[0]) if known and len(known) == len(parts) else None), replayed

    def _forget(self, number: int) -> None:
        """Values that are not needed behind an operation."""
        self._held = {place: tensor for place, tensor in self._held.items() if self._needed[place] > number}


def weight_position(function: Any, args: Sequence[Any], layers: Mapping[int, str]) -> int | None:
    """Where among its arguments, as `positional` gives them, an operation has a weight that it multiplies by."""
    if operation_name(function) in READING:
        for position in (1, 2):
            if len(args) > position and id(args[position]) in layers and isinstance(args[position - 1], Tensor):
                return position
    return None


def operation_name(function: Any) -> str:
    """The name of an operation, the same for a function and for an ATen operator (`linear` of `linear.default`)."""
    return str(getattr(function, "__name__", "")).partition(".")[0]


_LAYER = ("input", "weight", "bias")
READING = {
    "linear": _LAYER, "conv1d": _LAYER, "conv2d": _LAYER, "conv3d": _LAYER, "addmm": ("input", "mat1", "mat2"),
    "matmul": ("input", "other"), "mm": ("input", "mat2"), "__matmul__": ("input", "other"),
}  # fmt: skip
"""Operations that a weight is read in, with the names of their first arguments."""


def positional(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of an operation that a weight is read in: the first by their positions, whichever way they came.

    Args:
        function: The operation; the arguments of others stay as they are.
        args: Given by position.
        kwargs: Given by name.
    """
    positions, named = [*args], {**kwargs}
    for name in READING.get(operation_name(function), ())[len(args) :]:
        if name not in named:
            break
        positions.append(named.pop(name))
    return tuple(positions), named


class Stop(Protocol):
    """What a pass arrived at."""

    @property
    def layer(self) -> str:
        """A name, the same for all passes."""


S = TypeVar("S", bound=Stop)
S_co = TypeVar("S_co", bound=Stop, covariant=True)


class Watched(Protocol[S_co]):
    """A pass that can be stopped on the way."""

    def watched(self, reach: Callable[[S_co], None]) -> Any:
        """Run it; `reach` is called at each stop, and comes back when the pass may go on."""


class _Pass(threading.Thread, Generic[S]):
    """One forward pass, which stops at each of its layers until it is let go on."""

    def __init__(self, forward: Watched[S]) -> None:
        super().__init__(daemon=True)
        self.forward = forward
        self.call: S | None = None
        self.output: Any = None
        self.error: BaseException | None = None
        self.ended = self.stopped = False
        self._go, self._arrived = threading.Semaphore(0), threading.Semaphore(0)

    def run(self) -> None:
        self._go.acquire()
        try:
            if not self.stopped:
                with torch.no_grad():
                    self.output = self.forward.watched(self._reach)
        except _Stopped:
            pass
        except BaseException as error:
            self.error = error
        self.ended, self.call = True, None
        self._arrived.release()

    def advance(self) -> None:
        """Let it go on to its next layer, or to its end; raises what it raised."""
        self._go.release()
        self._arrived.acquire()
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        """End it where it waits."""
        self.stopped = True
        if not self.ended and self.is_alive():
            self._go.release()
            self.join()

    def _reach(self, call: S) -> None:
        self.call = call
        self._arrived.release()
        self._go.acquire()
        self.call = None
        if self.stopped:
            raise _Stopped


class _Stopped(BaseException):
    """Ends a pass; no `except Exception` of a network's own code may catch it."""


class Parted(RuntimeError):
    """Passes went different ways."""


class Lockstep(Generic[S]):
    """Forward passes that are led from layer to layer together.

    Every pass runs alone while the others wait, so memory holds what each has at hand there, and results do not depend
    on how threads are scheduled. Use it as a context, so that passes end with it.
    """

    def __init__(self, forwards: Sequence[Watched[S]]) -> None:
        self._passes = [_Pass[S](forward) for forward in forwards]
        self._layer_by_layer = layer_by_layer()

    def __enter__(self) -> Lockstep[S]:
        self._layer_by_layer.__enter__()
        for forward_pass in self._passes:
            forward_pass.start()
        return self

    def __exit__(self, *_: object) -> None:
        for forward_pass in self._passes:
            forward_pass.stop()
        self._layer_by_layer.__exit__(None, None, None)
        memory.give_back()

    def layers(self) -> Iterator[list[S]]:
        """What all passes arrived at, layer by layer; what is changed in the meantime counts when they go on."""
        while True:
            memory.give_back()  # what was done with the calls
            for forward_pass in self._passes:
                forward_pass.advance()
                memory.give_back(of_thread=True)
            if all(forward_pass.ended for forward_pass in self._passes):
                return
            calls = [forward_pass.call for forward_pass in self._passes]
            if any(call is None for call in calls) or len({call.layer for call in calls if call}) != 1:
                raise Parted("the passes do not go through the same layers")
            arrived = [call for call in calls if call is not None]
            del calls
            yield arrived
            arrived.clear()  # whoever asked holds the list until the next layer is reached

    @property
    def outputs(self) -> list[Any]:
        """What each pass gave in the end."""
        return [forward_pass.output for forward_pass in self._passes]
