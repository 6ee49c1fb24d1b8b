"""Looking components up by kind and name, with their provenance; clashes and typing mistakes get a full answer."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from paramtrans.api.specs import Component, PluginSource
from paramtrans.errors import NameConflict, PluginLoadError, UnknownName
from paramtrans.utils.near import did_you_mean

logger = logging.getLogger(__name__)

KINDS = (
    "block_adapter",
    "translator",
    "augmenter",
    "objective",
    "task",
    "rival",
    "probe",
    "executor",
    "architecture",
    "width_rule",
    "metric",
    "report_section",
    "pretrained_translator",
    "command",
)
"""Kinds of components; the hook of each is `paramtrans_<kind>s`."""


@dataclass(frozen=True)
class Provider:
    """Where a component came from."""

    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}".strip()


@dataclass(frozen=True)
class Entry:
    """One registered component."""

    kind: str
    component: Component
    provider: Provider

    @property
    def name(self) -> str:
        return self.component.name

    def resolve(self) -> Any:
        """Import what `component.target` names; raises `PluginLoadError` with the provider and the cause."""
        module, _, attribute = self.component.target.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (Exception, SystemExit) as error:  # a plugin may raise anything at import
            missing = isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]
            advice = "; install its distribution, or put the folder it is in on PYTHONPATH" if missing else ""
            raise PluginLoadError(
                f'{self.kind} "{self.name}" of {self.provider} cannot be loaded from {self.component.target}: '
                f"{type(error).__name__}: {error}{advice}"
            ) from error


LIVE: WeakValueDictionary[str, Registry] = WeakValueDictionary()
"""The registries of this process, by the key of their source: a job that is done here is done with its own."""


def new_key() -> str:
    """A key that no other registry has, in this process or another."""
    return os.urandom(8).hex()


class Registry:
    """All components of all loaded plugins."""

    def __init__(
        self, entries: Iterable[Entry] = (), not_loaded: Iterable[str] = (), source: PluginSource | None = None
    ) -> None:
        self._entries = tuple(entries)
        self._usable: dict[str, list[tuple[str, Any]]] = {}
        self.source = source or PluginSource(new_key(), absent=("a registry made by hand",))
        """How another process comes by the same."""
        LIVE[self.source.key] = self
        self.not_loaded = tuple(not_loaded)
        """What could not be loaded and why, a line each, for error messages."""

    def __iter__(self) -> Any:
        return iter(sorted(self._entries, key=lambda e: (KINDS.index(e.kind), e.name)))

    def of_kind(self, kind: str) -> list[Entry]:
        return [entry for entry in self if entry.kind == kind]

    def usable(self, kind: str) -> list[tuple[str, Any]]:
        """Names and classes of all components of a kind that can be used without naming one. Those that cannot be
        imported, and names that several distributions provide, are left out, with a warning the first time."""
        if kind not in self._usable:
            usable, unusable = {}, set()
            for entry in self.of_kind(kind):
                try:
                    usable[entry.name] = self.load(kind, entry.name)
                except (PluginLoadError, NameConflict) as error:
                    unusable.add(str(error))
            for reason in sorted(unusable):
                logger.warning("left out: %s", reason)
            self._usable[kind] = list(usable.items())
        return self._usable[kind]

    def find(self, kind: str, name: str) -> Entry:
        """The one component of this kind and name.

        Args:
            kind: One of `KINDS`.
            name: What configs call it.

        Raises:
            UnknownName: there is none; a near name is offered.
            NameConflict: several distributions provide it.
        """
        entries = [entry for entry in self.of_kind(kind) if entry.name == name]
        if not entries:
            raise UnknownName(self._unknown(kind, name))
        if len(entries) > 1:
            providers = " and ".join(str(entry.provider) for entry in entries)
            raise NameConflict(f'{kind} "{name}" is provided by {providers}; uninstall one, or rename one of them')
        return entries[0]

    def named(self, name: str) -> list[Entry]:
        """The components of this name, of any kind; raises `UnknownName` where there is none."""
        if entries := [entry for entry in self if entry.name == name]:
            return entries
        hint = did_you_mean(name, {entry.name for entry in self}, "paramtrans plugins lists what there is")
        raise UnknownName(f'unknown component "{name}"{hint}')

    def name_of(self, kind: str, cls: type) -> str:
        """The name under which a class is announced.

        Args:
            kind: One of `KINDS`.
            cls: The class.

        Raises:
            UnknownName: no plugin announces it.
        """
        for entry in self.of_kind(kind):
            if entry.component.target == f"{cls.__module__}:{cls.__qualname__}":
                return entry.name
        raise UnknownName(f"no plugin announces {cls.__module__}:{cls.__qualname__} as a {kind.replace('_', ' ')}")

    def load(self, kind: str, name: str) -> Any:
        """The class (or command) of this kind and name."""
        return self.find(kind, name).resolve()

    def create(self, kind: str, name: str, *args: Any, **options: Any) -> Any:
        """A component with options validated by its own model.

        Args:
            kind: One of `KINDS`.
            name: What configs call it.
            args: What its class takes behind the options.
            options: By name; the others are at their defaults.

        Raises:
            UnknownName: there is no such component.
            ConfigError: options are wrong.

        >>> from paramtrans.plugins import components
        >>> components().create("block_adapter", "mlp", channels=6, hidden=12).spec.parameters
        162
        """
        from paramtrans.api.options import validate  # here, because pydantic takes longer to import than listing takes

        cls = self.load(kind, name)
        validated = validate(cls.Options, options, f"{kind.replace('_', ' ')} {name}: ")
        return cls(validated, *args, registry=self) if cls.needs_registry else cls(validated, *args)

    def _unknown(self, kind: str, name: str) -> str:
        if kind not in KINDS:
            return f'unknown kind of component "{kind}"{did_you_mean(kind, KINDS)}\n  kinds: {", ".join(KINDS)}'
        near = did_you_mean(name, {entry.name for entry in self.of_kind(kind)})
        lines = [f'unknown {kind.replace("_", " ")} "{name}"{near}']
        providers = sorted({str(entry.provider) for entry in self.of_kind(kind)})
        for provider in providers:
            offered = sorted(entry.name for entry in self.of_kind(kind) if str(entry.provider) == provider)
            lines.append(f"  available: {', '.join(offered)} ({provider})")
        lines.extend(f"  not loaded: {line}" for line in self.not_loaded)
        lines.append("  one of your own: install its plugin, or name its file (--plugin FILE; in Python registry=)")
        return "\n".join(lines)
