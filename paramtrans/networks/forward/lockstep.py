"""Several passes of networks at once, which wait for each other at some of their layers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

Arrived = list["Call"]


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


class _Watch(TorchFunctionMode):
    """Calls back wherever an operation is given one of some tensors."""

    def __init__(self, layers: Mapping[int, str], reach: Callable[[Call], None]) -> None:
        super().__init__()
        self.layers, self.reach = layers, reach

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for position, argument in enumerate(args):
            if isinstance(argument, Tensor) and id(argument) in self.layers and _reads(func, args, position):
                self.reach(Call(self.layers[id(argument)], func, args, kwargs or {}, position))
                break
        return func(*args, **(kwargs or {}))


def _reads(func: Any, args: tuple[Any, ...], position: int) -> bool:
    """Whether an operation multiplies something by the tensor at a position."""
    return getattr(func, "__name__", "") in READING and position in (1, 2) and isinstance(args[position - 1], Tensor)


READING = ("linear", "conv1d", "conv2d", "conv3d", "addmm", "matmul", "mm", "__matmul__")
"""Operations that a weight is read in."""


class _Pass(threading.Thread):
    """One forward pass, which stops at each of its layers until it is let go on."""

    def __init__(self, forward: Callable[[], Any], layers: Mapping[int, str]) -> None:
        super().__init__(daemon=True)
        self.forward, self.layers = forward, layers
        self.call: Call | None = None
        self.output: Any = None
        self.error: BaseException | None = None
        self.ended = self.stopped = False
        self._go, self._arrived = threading.Semaphore(0), threading.Semaphore(0)

    def run(self) -> None:
        self._go.acquire()
        try:
            if not self.stopped:
                with torch.no_grad(), _Watch(self.layers, self._reach):
                    self.output = self.forward()
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

    def _reach(self, call: Call) -> None:
        self.call = call
        self._arrived.release()
        self._go.acquire()
        self.call = None
        if self.stopped:
            raise _Stopped


class _Stopped(BaseException):
    """Ends a pass; no `except Exception` of a network's own code may catch it."""


class Lockstep:
    """Forward passes that are led from layer to layer together.

    Every pass runs alone while the others wait, so memory holds what each has at hand there, and results do not depend
    on how threads are scheduled. Use it as a context, so that passes end with it.
    """

    def __init__(self, forwards: Sequence[tuple[Callable[[], Any], Mapping[int, str]]]) -> None:
        """Each pass, with the tensors whose layers it is to stop at: their `id`, and a name."""
        self._passes = [_Pass(forward, layers) for forward, layers in forwards]

    def __enter__(self) -> Lockstep:
        fast = torch.backends.mha.get_fastpath_enabled()
        self._fast = fast
        torch.backends.mha.set_fastpath_enabled(False)
        for forward_pass in self._passes:
            forward_pass.start()
        return self

    def __exit__(self, *_: object) -> None:
        for forward_pass in self._passes:
            forward_pass.stop()
        torch.backends.mha.set_fastpath_enabled(self._fast)

    def layers(self) -> Iterator[Arrived]:
        """What all passes arrived at, layer by layer; what is changed in the meantime counts when they go on."""
        while True:
            for forward_pass in self._passes:
                forward_pass.advance()
            if all(forward_pass.ended for forward_pass in self._passes):
                return
            calls = [forward_pass.call for forward_pass in self._passes]
            if any(call is None for call in calls) or len({call.layer for call in calls if call}) != 1:
                raise RuntimeError("the passes do not go through the same layers")
            yield [call for call in calls if call is not None]

    @property
    def outputs(self) -> list[Any]:
        """What each pass gave in the end."""
        return [forward_pass.output for forward_pass in self._passes]
