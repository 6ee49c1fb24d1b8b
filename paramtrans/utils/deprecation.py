"""Old names that go on working for a while, and say what to use instead.

How long, and for which names, is in docs/formats.md.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Moved:
    """Where what an old name meant is now, as `package.module:name`, and the version in which the old name goes."""

    to: str
    removed_in: str

    def resolve(self) -> Any:
        """What the old name means."""
        module, _, name = self.to.partition(":")
        return getattr(importlib.import_module(module), name)


def deprecated(
    *, instead: str, removed_in: str
) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """Mark a function or method that goes: a call warns once from each place, and then does what it always did.

    Args:
        instead: What to use, as a caller would write it.
        removed_in: The version in which the function is gone.

    Returns:
        A decorator that keeps the function's name, documentation and signature.

    Example:
        >>> @deprecated(instead="paramtrans.translate", removed_in="0.4")
        ... def compress(network):
        ...     return translate(network)
    """

    def decorate(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        @functools.wraps(function)
        def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            warn(f"{function.__module__}.{function.__qualname__}", instead, removed_in, stacklevel=3)
            return function(*args, **kwargs)

        return call

    return decorate


def deprecated_names(module: str, moved: Mapping[str, Moved]) -> Callable[[str], Any]:
    """A module's `__getattr__` for names that have moved: reading one warns, and gives what is at the new place.

    Args:
        module: The module's `__name__`.
        moved: The old names. None of them may still be bound in the module, as Python would never ask for it.

    Returns:
        A function of a name. It raises `AttributeError` for any other name, as Python would.

    Example:
        >>> __getattr__ = deprecated_names(__name__, {"compress": Moved("paramtrans:translate", removed_in="0.4")})
    """

    def get(name: str) -> Any:
        if name not in moved:
            raise AttributeError(f"module {module!r} has no attribute {name!r}", name=name)
        new = moved[name]
        warn(f"{module}.{name}", new.to.replace(":", "."), new.removed_in, stacklevel=3)
        return new.resolve()

    return get


def warn(old: str, instead: str, removed_in: str, stacklevel: int = 2) -> None:
    """Warn that a name goes; `stacklevel` counts from here, so that 2 is the caller's line, 3 that of its caller."""
    message = f"{old} is deprecated and goes in paramtrans {removed_in}; use {instead}"
    warnings.warn(message, DeprecationWarning, stacklevel=stacklevel)
