"""The plugin manager: finds plugins by entry points, survives broken ones, and fills the registry."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from paramtrans.api.specs import PluginSource
from paramtrans.errors import PluginLoadError
from paramtrans.plugins import hookspecs
from paramtrans.plugins.calls import Outcome, guarded
from paramtrans.plugins.registry import KINDS, LIVE, Entry, Provider, Registry, new_key
from paramtrans.utils import surroundings
from paramtrans.utils.boundary import in_words
from paramtrans.utils.near import did_you_mean
from paramtrans.utils.source_file import source_spec

ENTRY_POINTS = "paramtrans"


class Plugins:
    """Loaded plugins. Nothing is loaded twice, and what fails to load is remembered, not raised."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager("paramtrans")
        self._manager.add_hookspecs(hookspecs)
        self._lock, self._outcome = threading.RLock(), Outcome("")
        self._providers: dict[str, Provider] = {}
        self.not_loaded: list[str] = []
        self.files: list[Path] = []
        """One-file plugins."""
        self._entry_points = False
        self._modules: list[tuple[str, str, str]] = []
        self._objects: list[str] = []

    @classmethod
    def of(cls, source: PluginSource) -> Plugins:
        """The plugins of another process, as far as they can be had here.

        Args:
            source: How they are come by: entry points, files, modules.

        Returns:
            A set of plugins.

        Raises:
            PluginLoadError: a one-file plugin is missing, or fails.
        """
        plugins = cls()
        if source.entry_points:
            plugins.load_entry_points()
        for file in source.files:
            plugins.load_file(Path(file))
        for name, distribution, version in source.modules:
            plugins._load(partial(importlib.import_module, name), Provider(distribution, version))
        plugins.not_loaded += source.absent
        return plugins

    def source(self) -> PluginSource:
        """How another process comes by the same plugins."""
        absent = (f"{provider} (registered as an object, which other processes lack)" for provider in self._objects)
        files = tuple(map(str, self.files))
        return PluginSource(new_key(), self._entry_points, files, tuple(self._modules), tuple(absent))

    def load_entry_points(self) -> None:
        """Load every plugin that an installed distribution announces under `[project.entry-points.paramtrans]`."""
        self._entry_points = True
        seen: set[tuple[str, str]] = set()
        for distribution in importlib.metadata.distributions():
            points = distribution.entry_points.select(group=ENTRY_POINTS)
            metadata: Any = distribution.metadata if points else {}  # read anew, and parsed, each time it is asked for
            for point in points:
                name, version = metadata["Name"] or "", metadata["Version"] or ""
                # An editable install can be visible on two paths; the first one found is the one imported.
                if (name, point.name) in seen:
                    continue
                seen.add((name, point.name))
                self._load(point.load, Provider(name, version))

    def load_file(self, path: Path | str) -> None:
        """Load a one-file plugin. Only the command line or a caller does so, never a config.

        Args:
            path: The Python file.

        Raises:
            PluginLoadError: the file is missing or fails: whoever names a file wants it.
        """
        path = Path(path)
        # Files of one name in different folders are different plugins; one file given twice is one.
        with in_words(f"--plugin {path}", "name a Python file", PluginLoadError):
            place = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:8]
        name = f"paramtrans_file_{path.stem}_{place}"
        if name in sys.modules and self._manager.has_plugin(name):
            return
        spec = source_spec(name, path)
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
            self._register(module, Provider(str(path), ""))
            self.files.append(path.resolve())
        except (Exception, SystemExit) as error:
            del sys.modules[module.__name__]
            raise PluginLoadError(f"--plugin {path}: {type(error).__name__}: {error}") from error

    def register(self, plugin: ModuleType | object, provider: Provider) -> None:
        """Add a plugin, a module or an object with hooks.

        Other processes, which may train shards, import a module by its name; an object cannot reach them.

        Args:
            plugin: The module or object.
            provider: Who brings it, for messages and listings.

        Raises:
            PluginLoadError: it was written for other hooks than ours.
        """
        self._register(plugin, provider)
        if isinstance(plugin, ModuleType):
            self._modules.append((plugin.__name__, provider.distribution, provider.version))
        else:
            self._objects.append(str(provider))

    def _register(self, plugin: ModuleType | object, provider: Provider) -> None:
        version = getattr(plugin, "PARAMTRANS_HOOK_VERSION", hookspecs.HOOK_VERSION)
        if version != hookspecs.HOOK_VERSION:
            raise PluginLoadError(f"written for hook version {version}, this paramtrans has {hookspecs.HOOK_VERSION}")
        if unmarked := [name for name in vars(hookspecs) if _is_unmarked(name, plugin)]:
            raise PluginLoadError(f"{', '.join(unmarked)}: not marked; put @hookimpl above each hook")
        guards = guarded(plugin, provider, self._manager, lambda: self._outcome)
        name = self._manager.register(guards, self._manager.get_canonical_name(plugin))
        try:
            self._manager.check_pending()
        except pluggy.PluginValidationError as error:
            self._manager.unregister(guards)
            raise PluginLoadError(_no_hook(plugin) or str(error)) from error
        self._providers[str(name)] = provider

    def registry(self) -> Registry:
        """The components that all plugins announce. A plugin that raises in its hook is reported and left out."""
        entries: list[Entry] = []
        failures: list[str] = []
        for kind in KINDS:
            outcome = Outcome(f"paramtrans_{kind}s")
            with self._reporting_to(outcome):
                announced = getattr(self._manager.hook, outcome.hook)()
            entries += outcome.entries(kind, announced)
            failures += outcome.failures
        return Registry(entries, [*self.not_loaded, *failures], self.source())

    def notify(self, hook: str, **arguments: Any) -> None:
        """Call a lifecycle hook of every plugin.

        Args:
            hook: Its name.
            arguments: What it is given; each plugin takes those that it names.

        Raises:
            PluginLoadError: a plugin fails; it is named.
            StopRun: a plugin asks that the run ends here.
        """
        getattr(self._manager.hook, hook)(**arguments)

    @contextmanager
    def _reporting_to(self, outcome: Outcome) -> Iterator[None]:
        """Within it the guards of all plugins report to this one call; a hook may ask for the registry in its turn."""
        with self._lock:
            before, self._outcome = self._outcome, outcome
            try:
                yield
            finally:
                self._outcome = before

    def providers(self) -> list[Provider]:
        """Every distribution that brought a plugin, once."""
        return sorted(set(self._providers.values()), key=str)

    def _load(self, load: Callable[[], Any], provider: Provider) -> None:
        try:
            with surroundings.restored():
                plugin = load()
            self._register(plugin, provider)
        except (Exception, SystemExit) as error:  # a broken plugin must not take the program down
            self.not_loaded.append(f"{provider} ({type(error).__name__}: {error})")


def _is_unmarked(name: str, plugin: object) -> bool:
    """Whether a plugin has a function with a hook's name that is none."""
    function = getattr(plugin, name, None) if name.startswith("paramtrans_") else None
    return callable(function) and not hasattr(function, "paramtrans_impl")


def _no_hook(plugin: object) -> str:
    """What is said of the first function of a plugin that is marked as a hook and has the name of none."""
    names = [name for name in vars(hookspecs) if name.startswith("paramtrans_")]
    for name in dir(plugin):
        if hasattr(getattr(plugin, name, None), "paramtrans_impl") and name not in names:
            return f"there is no hook {name}{did_you_mean(name, names)}"
    return ""


@cache
def plugins() -> Plugins:
    """The plugins of this environment, loaded on first use."""
    loaded = Plugins()
    loaded.load_entry_points()
    return loaded


def registry_of(source: PluginSource) -> Registry:
    """The registry that a source is of: itself in the process that made it, made anew in others.

    Raises:
        PluginLoadError: a one-file plugin is missing, or fails.
    """
    return LIVE.get(source.key) or _made_anew(source)


@lru_cache(maxsize=4)
def _made_anew(source: PluginSource) -> Registry:
    return Plugins.of(source).registry()


def components() -> Registry:
    """The registry of this environment's plugins."""
    return plugins().registry()
