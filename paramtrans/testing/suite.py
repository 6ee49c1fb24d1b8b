"""Which checks are made of which component, and what came of them."""

from __future__ import annotations

import importlib.metadata
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from paramtrans.api.specs import Component
from paramtrans.errors import NameConflict, PluginLoadError, UnknownName
from paramtrans.plugins.manager import ENTRY_POINTS, components
from paramtrans.plugins.registry import Entry, Provider, Registry
from paramtrans.testing import (  # noqa: F401 - each brings its checks
    augmenters,
    blocks,
    every,
    executors,
    families,
    metrics,
    objectives,
    places,
    probes,
    rivals,
    symmetries,
    tasks,
    token_translators,
    translators,
    unit_translators,
    whole_networks,
    width_rules,
)
from paramtrans.testing.check import CHECKS as CHECKS, Check, CheckFailed, Subject
from paramtrans.testing.samples import trials

GATES = (every.right_kind, every.can_be_built)
"""Where one of these fails, the other checks would say nothing of their own."""


@dataclass(frozen=True)
class Result:
    """What one check found."""

    kind: str
    name: str
    options: dict[str, Any]
    check: str
    says: str
    """The promise that was checked."""
    passed: bool
    message: str
    """Where it failed: what was expected and what was found."""
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """As `paramtrans check --json` gives it."""
        return asdict(self)


def subjects(
    name: str, registry: Registry | None = None, kind: str | None = None, options: Mapping[str, Any] | None = None
) -> list[Subject]:
    """All that a name stands for, with each set of options to try it with.

    Args:
        name: A component's, or a distribution's.
        registry: Where it is looked up; all plugins that are installed unless given.
        kind: Narrows it to components of this kind.
        options: These stand over the component's own `trials`.

    Returns:
        The component with each set of options, at least one.

    Raises:
        UnknownName: there is nothing of that name, or nothing that can be tried.
    """
    registry, wanted = registry or components(), _canonical(name)
    entries = [e for e in registry if kind in (None, e.kind) and _canonical(e.provider.distribution) == wanted]
    plugins = _plugins(name) if entries and kind is None else []
    if not entries:
        entries = [e for e in registry.named(name) if kind in (None, e.kind)]
        if not entries:
            raise UnknownName(f'there is a component "{name}", but no {kind} of that name')
    tried = [Subject(entry, {}, registry) for entry in plugins]
    for entry in entries:
        if entry.kind in every.BASES:
            clash = _shares_name(entry, registry)
            tried += [Subject(entry, trial, registry, clash) for trial in _trials(entry, options)]
    if not tried:
        if any(entry.kind in every.BASES for entry in entries):
            raise UnknownName(f'"{name}" has nothing to be tried with; give it an option with --set OPTION=VALUE')
        raise UnknownName(f'"{name}" is a {entries[0].kind.replace("_", " ")}; there are no checks for those')
    return tried


def _trials(entry: Entry, options: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """What a component is tried with; nothing where it has to be left alone; `{}` where its class has no `trials`."""
    try:
        cls = entry.resolve()
    except PluginLoadError:  # told by the first check
        return [{}]
    return trials(cls, entry.kind, options) if hasattr(cls, "trials") else [{}]


def _shares_name(entry: Entry, registry: Registry) -> str:
    """What is to be said of a name that others provide too; empty where nobody does."""
    try:
        registry.find(entry.kind, entry.name)
    except NameConflict as error:
        return str(error)
    return ""


def _canonical(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _plugins(distribution: str) -> list[Entry]:
    """The modules that a distribution announces as plugins."""
    try:
        installed = importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:  # a file given by --plugin, which nothing has to list quickly
        return []
    points = installed.entry_points.select(group=ENTRY_POINTS)
    provider = Provider(installed.metadata["Name"], installed.version)
    return [Entry("plugin", Component(point.name, "", point.value), provider) for point in points]


def checks(subject: Subject) -> list[Check]:
    """The checks of a subject, in order; those that fail at the door alone, where there are such.

    Args:
        subject: The component, and the options to try it with.

    Returns:
        The checks.
    """
    if subject.kind != "plugin":
        for gate in GATES:
            try:
                gate(subject)
            except CheckFailed:
                return [gate]
    applying = [check for check in CHECKS if check.applies(subject)]
    return sorted(applying, key=lambda check: check.run.__module__ != every.__name__)


def results(tried: Iterable[Subject]) -> Iterator[Result]:
    """Make every check of every subject, one after the other.

    Args:
        tried: The subjects.

    Yields:
        What each check found, as soon as it is made.
    """
    for subject in tried:
        for check in checks(subject):
            started, message = time.perf_counter(), ""
            try:
                check(subject)
            except CheckFailed as error:
                message = error.reason
            yield Result(
                subject.kind,
                subject.name,
                dict(subject.options),
                check.name,
                check.says,
                not message,
                message,
                time.perf_counter() - started,
            )


def conformance(*names: str, registry: Registry | None = None, kind: str | None = None) -> Callable[..., None]:
    """A pytest test of everything these components or distributions promise, a case for each check.

    The whole test file of a plugin:

        from paramtrans.testing import conformance

        test_conformance = conformance("my-distribution")

    Args:
        names: Components or distributions.
        registry: Where they are looked up; all plugins that are installed unless given.
        kind: Narrows them to components of this kind.

    Returns:
        The test function.

    Raises:
        UnknownName: there is nothing of one of the names.
    """
    import pytest

    tried = [subject for name in names for subject in subjects(name, registry, kind)]
    cases = [pytest.param(promise, s, id=f"{s.title}-{promise.name}") for s in tried for promise in checks(s)]

    @pytest.mark.parametrize(("check", "subject"), cases)
    def test_conformance(check: Check, subject: Subject) -> None:
        check(subject)

    return test_conformance
