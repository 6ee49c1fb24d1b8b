"""The plugin manager: finds plugins by entry points, survives broken ones, and fills the registry."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import sys
import threading
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from paramtrans.errors import PluginLoadError
from paramtrans.plugins import hookspecs
from paramtrans.plugins.calls import Outcome, guarded
from paramtrans.plugins.registry import KINDS, Entry, Provider, Registry

ENTRY_POINTS = "paramtrans"


class Plugins:
    """Loaded plugins. Nothing is loaded twice, and what fails to load is remembered, not raised."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager("paramtrans")
        self._manager.add_hookspecs(hookspecs)
        self._lock, self._outcome = threading.Lock(), Outcome("")
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
        if name in sys.modules and self._manager.has_plugin(name):
            return
        spec = importlib.util.spec_from_file_location(name, path)
        if not path.is_file() or spec is None or spec.loader is None:
            raise PluginLoadError(f"--plugin {path}: no such Python file")
        module = importlib.util.module_from_spec(spec)
        # Components are resolved by name later, so the import system must know the module.
        sys.modules[module.__name__] = module
        try:
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
        made = guarded(plugin, provider, self._manager, lambda: self._outcome)
        name = self._manager.register(made, self._manager.get_canonical_name(plugin))
        try:
            self._manager.check_pending()
        except pluggy.PluginValidationError as error:
            self._manager.unregister(made)
            raise PluginLoadError(str(error)) from error
        self._providers[str(name)] = provider

    def registry(self) -> Registry:
        """The components that all plugins announce. A plugin that raises in its hook is reported and left out."""
        entries: list[Entry] = []
        failures: list[str] = []
        with self._lock:  # the guards of all plugins report to the one call that goes on
            for kind in KINDS:
                self._outcome = Outcome(f"paramtrans_{kind}s")
                announced = getattr(self._manager.hook, self._outcome.hook)()
                entries += self._outcome.entries(kind, announced)
                failures += self._outcome.failures
        return Registry(entries, [*self.not_loaded, *failures])

    def notify(self, hook: str, **arguments: Any) -> None:
        """Call a lifecycle hook of every plugin.

        Raises:
            PluginLoadError: a plugin fails; it is named.
            StopRun: a plugin asks that the run ends here.
        """
        getattr(self._manager.hook, hook)(**arguments)

    def providers(self) -> list[Provider]:
        """Every distribution that brought a plugin, once."""
        return sorted(set(self._providers.values()), key=str)

    def _load(self, point: importlib.metadata.EntryPoint, provider: Provider) -> None:
        try:
            self.register(point.load(), provider)
        except (Exception, SystemExit) as error:  # a broken plugin must not take the program down
            self.not_loaded.append(f"{provider} ({type(error).__name__}: {error})")


@cache
def plugins() -> Plugins:
    """The plugins of this environment, loaded on first use."""
    loaded = Plugins()
    loaded.load_entry_points()
    return loaded


def components() -> Registry:
    """The registry of this environment's plugins."""
    return plugins().registry()
