"""Hooks are called by pluggy: wrappers run, order is as asked, a plugin that fails is named and does no harm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from paramtrans.api.specs import Component
from paramtrans.errors import PluginLoadError, StopRun
from paramtrans.plugins import Plugins, hookimpl
from paramtrans.plugins.registry import Provider

SHIFT = Component("shift", "shifts", "acme.shift:Shift")
Lists = list[list[Component]]


def plugin(name: str, function: Any, **options: bool) -> object:
    """An object with one hook."""
    return type("Plugin", (), {name: staticmethod(hookimpl(**options)(function))})()


def announcing(*components: object) -> object:
    return plugin("paramtrans_augmenters", lambda: list(components))


def loaded(**plugins: object) -> Plugins:
    """A set of these plugins, each provided by the distribution of its name."""
    manager = Plugins()
    for distribution, module in plugins.items():
        manager.register(module, Provider(distribution, "1"))
    return manager


def names(plugins: Plugins) -> dict[str, str]:
    """Who provides what."""
    return {entry.name: entry.provider.distribution for entry in plugins.registry()}


def test_a_wrapper_sees_what_is_announced_and_may_change_it() -> None:
    def wrapper() -> Iterator[Any]:
        announced: Lists = yield
        extra = [Component("extra", "more", "acme.extra:Extra")]
        return [[c for c in components if c.name != "noise"] for components in announced] + [extra]

    noise = Component("noise", "noise", "acme.noise:Noise")
    around = plugin("paramtrans_augmenters", wrapper, wrapper=True)
    manager = loaded(acme=announcing(SHIFT, noise), outer=around)
    assert names(manager) == {"shift": "acme", "extra": "outer"}
    assert manager.registry().not_loaded == ()


def test_equal_components_of_two_plugins_are_of_both() -> None:
    manager = loaded(one=announcing(Component("same", "", "m:C")), two=announcing(Component("same", "", "m:C")))
    assert {entry.provider.distribution for entry in manager.registry()} == {"one", "two"}


def early() -> Iterator[Any]:
    raise ValueError("too early")
    yield


def late() -> Iterator[Any]:
    yield
    raise SystemExit("too late")


def twice() -> Iterator[Any]:
    yield
    yield


def other() -> Iterator[Any]:
    yield
    return [["no component"]]


@pytest.mark.parametrize("wrapper", [early, late, twice, other])
def test_a_wrapper_that_fails_is_named_and_left_out(wrapper: Any) -> None:
    manager = loaded(acme=announcing(SHIFT), bad=plugin("paramtrans_augmenters", wrapper, wrapper=True))
    registry = manager.registry()
    assert [entry.name for entry in registry] == ["shift"]
    [line] = registry.not_loaded
    assert line.startswith("bad 1, hook paramtrans_augmenters (")


def test_a_plugin_that_fails_is_named_and_the_others_are_there() -> None:
    registry = loaded(bad=announcing("no component"), acme=announcing(SHIFT)).registry()
    assert [entry.name for entry in registry] == ["shift"]
    assert registry.not_loaded == (
        "bad 1, hook paramtrans_augmenters (TypeError: expected Component records, got 'no component')",
    )


def test_an_old_style_wrapper_is_refused() -> None:
    with pytest.raises(PluginLoadError, match="use wrapper=True"):
        loaded(old=plugin("paramtrans_augmenters", early, hookwrapper=True))


def test_lifecycle_hooks_are_called_in_the_order_they_ask_for() -> None:
    called: list[str] = []

    def listener(name: str, **options: bool) -> object:
        return plugin("paramtrans_run_started", lambda run: called.append(f"{name} {run}"), **options)

    def around(run: Any) -> Iterator[None]:
        called.append("before")
        yield
        called.append("after")

    wrapper = plugin("paramtrans_run_started", around, wrapper=True)
    manager = loaded(
        last=listener("last", trylast=True), first=listener("first", tryfirst=True), m=listener("middle"), w=wrapper
    )
    manager.notify("paramtrans_run_started", run="run")
    assert called == ["before", "first run", "middle run", "last run", "after"]


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_lifecycle_wrapper_that_fails_is_named(where: str) -> None:
    def around() -> Iterator[None]:
        if where == "before":
            raise ValueError("no room")
        yield
        raise ValueError("no room")

    manager = loaded(acme=plugin("paramtrans_run_started", around, wrapper=True))
    with pytest.raises(PluginLoadError, match=r"acme 1, hook paramtrans_run_started: ValueError: no room"):
        manager.notify("paramtrans_run_started", run=None)


def test_a_wrapper_may_end_a_run_and_sees_that_another_does() -> None:
    seen: list[str] = []

    def around() -> Iterator[None]:
        try:
            yield
        except StopRun as error:
            seen.append(str(error))
            raise

    def stop() -> None:
        raise StopRun("the night is over")

    manager = loaded(
        stopper=plugin("paramtrans_run_started", stop), w=plugin("paramtrans_run_started", around, wrapper=True)
    )
    with pytest.raises(StopRun, match="the night is over"):
        manager.notify("paramtrans_run_started", run=None)
    assert seen == ["the night is over"]


def test_a_hook_may_ask_for_what_else_there_is() -> None:
    manager = Plugins()

    def rivals() -> list[Component]:
        [shift] = manager.registry().of_kind("augmenter")
        return [Component("beside", "", shift.component.target)]

    asking = iter([rivals, list])  # once: it is called again by what it calls
    manager.register(announcing(SHIFT), Provider("acme", "1"))
    manager.register(plugin("paramtrans_rivals", lambda: next(asking)()), Provider("asking", "1"))
    assert names(manager) == {"shift": "acme", "beside": "asking"}
