"""How hooks are called: by pluggy, each implementation guarded, so that one that fails is named and does no harm."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import pluggy

from paramtrans.api.specs import Component
from paramtrans.errors import PluginLoadError, StopRun
from paramtrans.plugins.registry import Entry, Provider
from paramtrans.utils import surroundings

NAME = re.compile(r"[^\W_][\w.-]{0,99}")
"""What components may be called."""
TARGET = re.compile(r"\w+(\.\w+)*:\w+(\.\w+)*")
"""Where a component's class is."""

Function = Callable[..., Any]
Announced = list[list[Component]]
"""What a component hook gives, and its wrappers see: one list for each plugin."""


class Outcome:
    """What became of one call of a component hook: who announced what, and who failed."""

    def __init__(self, hook: str) -> None:
        self.hook = hook
        self.failures: list[str] = []
        self._known: dict[int, tuple[Component, Provider]] = {}

    def announced(self, components: Iterable[object], provider: Provider) -> list[Component]:
        """The components of one plugin, whose they are from now on unless they were another's before.

        Raises:
            TypeError: something among them is no `Component`.
            ValueError: one has a name or a target that is none.
        """
        if isinstance(components, Component):
            raise TypeError(f"expected a list of Component records, got {components!r}; put it into [ ]")
        checked = []
        for component in components:
            if not isinstance(component, Component):
                raise TypeError(f"expected Component records, got {component!r}")
            _check(component)
            self._known.setdefault(id(component), (component, provider))
            checked.append(component)
        return checked

    def failed(self, provider: Provider, error: BaseException) -> None:
        """Remember why a plugin is left out."""
        self.failures.append(f"{provider}, hook {self.hook} ({type(error).__name__}: {error})")

    def entries(self, kind: str, announced: Announced) -> Iterator[Entry]:
        """What is left once all wrappers are done, each component with its provider."""
        for component in (component for components in announced for component in components):
            yield Entry(kind, component, self._known[id(component)][1])


def _check(component: Component) -> None:
    """Raise `ValueError` for a component with a name or a target that is none."""
    if not NAME.fullmatch(component.name):
        raise ValueError(f"{component.name!r} is no name: letters, digits, _, - and . alone, at most 100")
    if not TARGET.fullmatch(component.target):
        raise ValueError(f"{component.name}: {component.target!r} is no target; write package.module:Class")


class Guarded:
    """A plugin whose hooks are guarded; pluggy calls these in place of the plugin's own."""

    def __init__(self, plugin: object) -> None:
        self._plugin = plugin

    def __repr__(self) -> str:
        return repr(self._plugin)


def guarded(
    plugin: object, provider: Provider, manager: pluggy.PluginManager, outcome: Callable[[], Outcome]
) -> Guarded:
    """A plugin with a guard around each of its hooks.

    Args:
        plugin: The module or object whose marked functions are hooks.
        provider: Who answers for it.
        manager: It knows which functions are marked.
        outcome: Gives that of the call that goes on.

    Raises:
        PluginLoadError: a hook is a wrapper in pluggy's old style.
    """
    guards = Guarded(plugin)
    for name in dir(plugin):
        options = manager.parse_hookimpl_opts(plugin, name)
        if options is None:
            continue
        if options.get("hookwrapper"):
            raise PluginLoadError(f"{name}: hookwrapper=True is pluggy's old style; use wrapper=True")
        function, announces = getattr(plugin, name), not _arguments(manager, name)
        if options.get("wrapper"):
            guard = (
                _wrapping(function, provider, outcome) if announces else _lifecycle_wrapper(function, provider, name)
            )
        else:
            guard = _announcing(function, provider, outcome) if announces else _lifecycle(function, provider, name)
        setattr(guards, name, functools.wraps(function)(guard))
    return guards


def _arguments(manager: pluggy.PluginManager, name: str) -> tuple[str, ...]:
    """Those of a hook's specification; none where there is no such hook, which pluggy says of its own accord."""
    caller = getattr(manager.hook, name, None)
    return tuple(caller.spec.argnames) if caller is not None and caller.spec is not None else ()


def _announcing(function: Function, provider: Provider, outcome: Callable[[], Outcome]) -> Function:
    def call(*arguments: Any) -> list[Component] | None:
        try:
            with surroundings.restored():
                return outcome().announced(function(*arguments), provider)
        except (Exception, SystemExit) as error:
            outcome().failed(provider, error)
            return None

    return call


def _wrapping(function: Function, provider: Provider, outcome: Callable[[], Outcome]) -> Function:
    """Where a wrapper fails, what it wraps stays as it is."""

    def call(*arguments: Any) -> Generator[None, Announced, Announced]:
        try:
            wrapper = function(*arguments)
            next(wrapper)
        except (Exception, SystemExit) as error:
            outcome().failed(provider, error)
            wrapper = None
        announced = yield
        if wrapper is None:
            return announced
        try:
            wrapper.send(list(announced))
        except StopIteration as end:
            return _adopted(end.value, announced, provider, outcome())
        except (Exception, SystemExit) as error:
            outcome().failed(provider, error)
            return announced
        outcome().failed(provider, RuntimeError("a wrapper yields once"))
        return announced

    return call


def _adopted(value: Any, before: Announced, provider: Provider, outcome: Outcome) -> Announced:
    """What a wrapper returned; where that is no lists of components, what it was given."""
    try:
        return [outcome.announced(components, provider) for components in value]
    except (Exception, SystemExit) as error:
        outcome.failed(provider, error)
        return before


def _lifecycle(function: Function, provider: Provider, hook: str) -> Function:
    def call(*arguments: Any) -> None:
        try:
            with surroundings.restored():
                function(*map(copy.deepcopy, arguments))  # what a plugin changes is its own
        except (StopRun, PluginLoadError):
            raise
        except (Exception, SystemExit) as error:
            raise _failure(error, provider, hook) from error

    return call


def _lifecycle_wrapper(function: Function, provider: Provider, hook: str) -> Function:
    def call(*arguments: Any) -> Generator[None, Any, Any]:
        try:
            return (yield from function(*arguments))
        except (StopRun, PluginLoadError):
            raise
        except (Exception, SystemExit) as error:
            raise _failure(error, provider, hook) from error

    return call


def _failure(error: BaseException, provider: Provider, hook: str) -> PluginLoadError:
    return PluginLoadError(f"{provider}, hook {hook}: {type(error).__name__}: {error}")
