"""Old names go on working, warn at the line that uses them, and say what to use instead and until when."""

from __future__ import annotations

import inspect
import os
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from paramtrans.utils.deprecation import Moved, deprecated, deprecated_names


@deprecated(instead="paramtrans.double", removed_in="0.4")
def twice(number: int, times: int = 2) -> int:
    """Number times two."""
    return number * times


class Counter:
    count = 3

    @deprecated(instead="Counter.count", removed_in="0.5")
    def get_count(self) -> int:
        return self.count


@pytest.fixture
def module() -> Iterator[types.ModuleType]:
    """A module from which `old_join` has moved."""
    name = "a_module_with_an_old_name"
    created = types.ModuleType(name)
    moved = {"old_join": Moved("os.path:join", removed_in="0.4"), "lost": Moved("os.path:nowhere", removed_in="0.4")}
    created.__dict__["__getattr__"] = deprecated_names(name, moved)
    sys.modules[name] = created
    yield created
    del sys.modules[name]


def warned(use: Callable[[], object]) -> tuple[object, warnings.WarningMessage]:
    """What a use gives, and its one warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        given = use()
    [warning] = caught
    return given, warning


def line_of(function: Callable[[], object]) -> int:
    """The line of a function written in one."""
    return inspect.getsourcelines(function)[1]


def test_a_deprecated_function_does_what_it_did_and_warns_at_the_call() -> None:
    use = lambda: twice(3, times=4)  # noqa: E731
    given, warning = warned(use)
    assert given == 12
    assert warning.category is DeprecationWarning
    assert (Path(warning.filename), warning.lineno) == (Path(__file__), line_of(use))
    assert all(word in str(warning.message) for word in (f"{__name__}.twice", "paramtrans.double", "0.4"))


def test_a_deprecated_method_knows_its_object_and_is_named_with_its_class() -> None:
    given, warning = warned(Counter().get_count)
    assert given == 3
    assert all(word in str(warning.message) for word in ("Counter.get_count", "Counter.count", "0.5"))


def test_a_deprecated_function_keeps_its_name_documentation_and_signature() -> None:
    assert (twice.__name__, twice.__doc__) == ("twice", "Number times two.")
    assert list(inspect.signature(twice).parameters) == ["number", "times"]


def test_defining_a_deprecated_function_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        deprecated(instead="len", removed_in="0.4")(len)


def test_a_moved_name_is_found_at_its_new_place_and_warns_where_it_is_read(module: types.ModuleType) -> None:
    use = lambda: module.old_join  # noqa: E731
    given, warning = warned(use)
    assert given is os.path.join
    assert warning.category is DeprecationWarning
    assert (Path(warning.filename), warning.lineno) == (Path(__file__), line_of(use))
    assert all(word in str(warning.message) for word in (f"{module.__name__}.old_join", "os.path.join", "0.4"))


def test_importing_a_moved_name_warns_too(module: types.ModuleType) -> None:
    with pytest.warns(DeprecationWarning, match="old_join") as caught:
        from a_module_with_an_old_name import old_join  # type: ignore[import-not-found]
    assert old_join is os.path.join
    assert [Path(warning.filename) for warning in caught] == [Path(__file__)]


def test_a_name_that_never_was_is_no_attribute_and_warns_of_nothing(module: types.ModuleType) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not hasattr(module, "never")
        with pytest.raises(AttributeError) as caught:
            _ = module.never
    assert caught.value.name == "never"


def test_a_new_place_that_is_not_there_is_an_error_rather_than_none(module: types.ModuleType) -> None:
    with pytest.warns(DeprecationWarning), pytest.raises(AttributeError) as caught:
        _ = module.lost
    assert caught.value.name == "nowhere"
