"""What a check is, what it is made on, and how it says what it found."""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from paramtrans.errors import PluginLoadError
from paramtrans.plugins.registry import Entry, Registry

Kept = TypeVar("Kept")


class CheckFailed(AssertionError):
    """A component does not do what its kind promises: what was expected and found, and where."""

    def __init__(self, reason: str, where: str = "") -> None:
        super().__init__(f"{where}: {reason}" if where else reason)
        self.reason = reason


def expect(holds: bool, expected: str, actual: object) -> None:
    """Raise `CheckFailed` unless `holds`."""
    if not holds:
        raise CheckFailed(f"expected {expected}; found {actual}")


@dataclass(frozen=True)
class Subject:
    """A component with the options it is tried with."""

    entry: Entry
    options: Mapping[str, Any]
    registry: Registry
    clash: str = ""
    """What is to be said of others that provide its name; empty without."""
    _made: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def kind(self) -> str:
        return self.entry.kind

    @property
    def name(self) -> str:
        return self.entry.name

    @functools.cached_property
    def cls(self) -> Any:
        """The component's class."""
        return self.entry.resolve()

    def create(self, *args: Any) -> Any:
        """A new component.

        Args:
            args: What its class takes behind the options.

        Returns:
            The component.
        """
        return self.registry.create(self.kind, self.name, *args, **self.options)

    def once(self, what: str, make: Callable[[], Kept]) -> Kept:
        """What `make` makes, kept for the checks that follow.

        Args:
            what: Names it.
            make: Makes it, the first time.

        Returns:
            What was made.
        """
        if what not in self._made:
            self._made[what] = make()
        value: Kept = self._made[what]
        return value

    @property
    def title(self) -> str:
        """Kind, name and options, as a test's name."""
        options = ",".join(f"{key}={value}" for key, value in self.options.items())
        return "-".join(part for part in (self.kind, self.name, options) if part)


def _line(subject: Subject, error: Exception) -> str:
    """The last line of the component's own file that an error came through, as ` (file.py:12)`."""
    if isinstance(error, PluginLoadError):
        return ""
    file = getattr(sys.modules.get(getattr(subject.entry.resolve(), "__module__", "")), "__file__", None)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" ({Path(file).name}:{lines[-1]})" if file and lines else ""


@dataclass(frozen=True)
class Check:
    """One promise of a kind of component. Called with a subject, it raises `CheckFailed` where that is broken."""

    name: str
    says: str
    """The promise, in a line."""
    kinds: frozenset[str]
    run: Callable[[Subject], None]
    when: Callable[[Subject], bool]
    """Whether the subject made this promise at all."""

    def __call__(self, subject: Subject) -> None:
        where = f"{subject.title}: {self.name}"
        try:
            self.run(subject)
        except CheckFailed as error:
            raise CheckFailed(error.reason, where) from None
        except Exception as error:  # whatever a component raises
            actual = f"{type(error).__name__}: {error}{_line(subject, error)}"
            raise CheckFailed(f"expected no error; found {actual}", where) from error

    def applies(self, subject: Subject) -> bool:
        """Whether the check says anything about this subject.

        Args:
            subject: The component with its options.

        Returns:
            Whether the check is to be run.
        """
        if subject.kind not in self.kinds:
            return False
        try:
            return self.when(subject)
        except Exception:  # not even that can be found out: the check will say why
            return True


CHECKS: list[Check] = []
"""All checks, in the order they are made."""


def check(
    *kinds: str, when: Callable[[Subject], bool] = lambda subject: True
) -> Callable[[Callable[[Subject], None]], Check]:
    """Make a function the check of its name; its docstring's first line is the promise.

    Args:
        kinds: Those of the components that it is for.
        when: Whether it says anything about a subject.
    """

    def decorate(run: Callable[[Subject], None]) -> Check:
        says = (run.__doc__ or "").partition("\n")[0]
        promise = Check(run.__name__, says, frozenset(kinds), run, when)
        CHECKS.append(promise)
        return promise

    return decorate


def differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Names of the tensors that are not the same, bit for bit, in two stacks."""
    import torch

    names = [*first, *(name for name in second if name not in first)]
    return [n for n in names if n not in first or n not in second or not torch.equal(first[n], second[n])]


def copied(params: Mapping[str, Any]) -> dict[str, Any]:
    """The same values in memory of their own, so that nothing a component does reaches the next call."""
    return {name: tensor.detach().clone() for name, tensor in params.items()}


@contextmanager
def drawing(seed: int) -> Iterator[None]:
    """Within it torch's own random numbers begin at `seed`; the caller's are left alone."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def named(names: Iterable[str]) -> str:
    """Names in a message, in order; `nothing` without any."""
    return ", ".join(names) or "nothing"
