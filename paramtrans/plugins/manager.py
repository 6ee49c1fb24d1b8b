"""The plugin manager: finds plugins by entry points, survives broken ones, and fills the registry."""

from __future__ import annotations

import copy
import hashlib
import importlib.metadata
import importlib.util
import re
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from paramtrans.api.specs import Component
from paramtrans.errors import PluginLoadError
from paramtrans.plugins import hookspecs
from paramtrans.plugins.registry import KINDS, Entry, Provider, Registry
from paramtrans.utils import surroundings

ENTRY_POINTS = "paramtrans"
NAME = re.compile(r"[^\W_][\w.-]{0,99}")
"""What components may be called."""
TARGET = re.compile(r"\w+(\.\w+)*:\w+(\.\w+)*")
"""Where a component's class is."""


class Plugins:
    """Loaded plugins. Nothing is loaded twice, and what fails to load is remembered, not raised."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager("paramtrans")
        self._manager.add_hookspecs(hookspecs)
        self._providers: dict[str, Provider] = {}
        self.not_loaded: list[str] = []
        self.files: list[Path] = []
        """One-file plugins, for processes that are to have the same ones."""

    def load_entry_points(self) -> None:
        """Load every plugin that an installed distribution announces under `[project.entry-points.paramtrans]`."""
        seen: set[tuple[str, str]] = set()
        for distribution in importlib.metadata.distributions():
            for point in distribution.entry_points.select(group=ENTRY_POINTS):
                name, version = distribution.metadata["Name"] or "", distribution.version or ""
                # An editable install can be visible on two paths; the first one found is the one imported.
                if (name, point.name) in seen:
                    continue
                seen.add((name, point.name))
                self._load(point, Provider(name, version))

    def load_file(self, path: Path) -> None:
        """Load a one-file plugin. Only the command line or a caller does so, never a config.

        Raises `PluginLoadError` where the file is missing or fails: whoever names a file wants it.
        """
        # Files of one name in different folders are different plugins; one file given twice is one.
        place = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
        name = f"paramtrans_file_{path.stem}_{place}"
        if name in sys.modules and self._manager.is_registered(sys.modules[name]):
            return
        spec = importlib.util.spec_from_file_location(name, path)
        if not path.is_file() or spec is None or spec.loader is None:
            raise PluginLoadError(f"--plugin {path}: no such Python file")
        module = importlib.util.module_from_spec(spec)
        # Components are resolved by name later, so the import system must know the module.
        sys.modules[module.__name__] = module
        if (folder := str(path.resolve().parent)) not in sys.path:
            sys.path.append(folder)  # for what stands beside the file, behind all that is installed
        try:
            with surroundings.restored():
                spec.loader.exec_module(module)
            self.register(module, Provider(str(path), ""))
            self.files.append(path.resolve())
        except (Exception, SystemExit) as error:
            del sys.modules[module.__name__]
            raise PluginLoadError(f"--plugin {path}: {type(error).__name__}: {error}") from error

    def register(self, plugin: ModuleType | object, provider: Provider) -> None:
        """Add a plugin; raises `PluginLoadError` where it was written for other hooks than ours."""
        version = getattr(plugin, "PARAMTRANS_HOOK_VERSION", hookspecs.HOOK_VERSION)
        if version != hookspecs.HOOK_VERSION:
            raise PluginLoadError(f"written for hook version {version}, this paramtrans has {hookspecs.HOOK_VERSION}")
        if unmarked := [name for name in vars(hookspecs) if _is_unmarked(name, plugin)]:
            raise PluginLoadError(f"{', '.join(unmarked)}: not marked; put @hookimpl above each hook")
        name = self._manager.register(plugin)
        try:
            self._manager.check_pending()
        except pluggy.PluginValidationError as error:
            self._manager.unregister(plugin)
            raise PluginLoadError(str(error)) from error
        self._providers[str(name)] = provider

    def registry(self) -> Registry:
        """The components that all plugins announce. A plugin that raises in its hook is reported and left out."""
        entries: list[Entry] = []
        failures: list[str] = []
        for kind in KINDS:
            for implementation in getattr(self._manager.hook, f"paramtrans_{kind}s").get_hookimpls():
                provider = self._providers[implementation.plugin_name]
                try:
                    entries += [
                        _entry(kind, component, provider) for component in _announced(implementation.function())
                    ]
                except (Exception, SystemExit) as error:
                    failures.append(f"{provider}, hook paramtrans_{kind}s ({type(error).__name__}: {error})")
        return Registry(entries, [*self.not_loaded, *failures])

    def notify(self, hook: str, **arguments: Any) -> None:
        """Call a lifecycle hook of every plugin; raises `PluginLoadError` naming the plugin that fails."""
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            wanted = {name: copy.deepcopy(arguments[name]) for name in implementation.argnames}
            try:
                with surroundings.restored():
                    implementation.function(**wanted)
            except (Exception, SystemExit) as error:
                provider = self._providers[implementation.plugin_name]
                raise PluginLoadError(f"{provider}, hook {hook}: {type(error).__name__}: {error}") from error

    def providers(self) -> list[Provider]:
        """Every distribution that brought a plugin, once."""
        return sorted(set(self._providers.values()), key=str)

    def _load(self, point: importlib.metadata.EntryPoint, provider: Provider) -> None:
        try:
            with surroundings.restored():
                plugin = point.load()
            self.register(plugin, provider)
        except (Exception, SystemExit) as error:  # a broken plugin must not take the program down
            self.not_loaded.append(f"{provider} ({type(error).__name__}: {error})")


def _is_unmarked(name: str, plugin: object) -> bool:
    """Whether a plugin has a function with a hook's name that is none."""
    function = getattr(plugin, name, None) if name.startswith("paramtrans_") else None
    return callable(function) and not hasattr(function, "paramtrans_impl")


def _announced(found: object) -> list[Any]:
    """What a hook returned, as a list; raises `TypeError` for a single component."""
    if not isinstance(found, list | tuple):
        raise TypeError(f"expected a list of Component records, got {found!r}; put it into [ ]")
    return list(found)


def _entry(kind: str, component: object, provider: Provider) -> Entry:
    if not isinstance(component, Component):
        raise TypeError(f"expected Component records, got {component!r}")
    if not NAME.fullmatch(component.name):
        raise ValueError(f"{component.name!r} is no name: letters, digits, _, - and . alone, at most 100")
    if not TARGET.fullmatch(component.target):
        raise ValueError(f"{component.name}: {component.target!r} is no target; write package.module:Class")
    return Entry(kind, component, provider)


@cache
def plugins() -> Plugins:
    """The plugins of this environment, loaded on first use."""
    loaded = Plugins()
    loaded.load_entry_points()
    return loaded


def components() -> Registry:
    """The registry of this environment's plugins."""
    return plugins().registry()
