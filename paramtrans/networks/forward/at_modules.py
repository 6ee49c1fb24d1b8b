"""Passes that stop at some modules of a network, and are given what these are to make of what reached them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from paramtrans.networks.forward.activations import Inputs, call
from paramtrans.networks.forward.replaced import replace_forward

_passing = threading.local()
"""What a pass of this thread calls where it stops."""


@dataclass
class ModuleCall:
    """A module that is about to be computed in one of the passes."""

    layer: str
    """Its path."""
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    compute: Callable[..., Any]
    """What the module itself makes of these."""
    output: Any = None
    """What it is to give: whoever led the pass here says it."""


@dataclass(frozen=True)
class ModulePass:
    """A pass of a network that stops at modules; within `Stops` alone."""

    network: nn.Module
    inputs: Inputs

    def watched(self, reach: Callable[[ModuleCall], None]) -> Any:
        """Run it; each of the modules is reached before it is computed."""
        _passing.reach = reach
        try:
            return call(self.network, self.inputs)
        finally:
            del _passing.reach


class Stops:
    """Modules of a network at which passes (`ModulePass`) stop, behind whatever is called before them.

    Use it as a context; the network is as before afterwards.
    """

    def __init__(self, network: nn.Module, paths: Iterable[str]) -> None:
        """`paths`: of the modules."""
        self._modules = {path: network.get_submodule(path) for path in paths}
        self._undo: dict[str, Callable[[], None]] = {}

    def __enter__(self) -> Stops:
        for path, module in self._modules.items():
            self._undo[path] = replace_forward(module, _stop_at(path, module.forward))
        return self

    def __exit__(self, *_: object) -> None:
        for path in [*self._undo]:
            self.release(path)

    def release(self, path: str) -> None:
        """Let no further pass stop at a module."""
        self._undo.pop(path)()


def _stop_at(path: str, compute: Callable[..., Any]) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        reach = getattr(_passing, "reach", None)
        if reach is None:
            return compute(*args, **kwargs)
        module_call = ModuleCall(path, args, kwargs, compute)
        reach(module_call)
        return module_call.output

    return forward
