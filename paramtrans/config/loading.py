"""TOML → validated records. Everything is checked before anything runs, and all mistakes are told at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paramtrans.api import options
from paramtrans.config import validation
from paramtrans.config.components import (
    SINGLE as SINGLE,
    ComponentConfig as ComponentConfig,
    MethodConfig as MethodConfig,
    well_formed,
)
from paramtrans.config.merge import override as override, read as read, settle
from paramtrans.config.schema import Config
from paramtrans.errors import ConfigError, ParamtransError
from paramtrans.plugins.registry import Registry
from paramtrans.storage.cache import at_home


def load(path: Path | str, registry: Registry, overrides: Sequence[str] = ()) -> Config:
    """Read, override and validate a config file.

    Args:
        path: The file, TOML.
        registry: Where its components are looked up.
        overrides: Settings `a.b=value` that stand over what the file says.

    Returns:
        The config, with defaults filled in.

    Raises:
        ConfigError: all mistakes, each with its place.
    """
    path = Path(path)
    where = str(path)
    document = settle(read(path), overrides, where)
    if "sweep" in document:
        raise ConfigError([f"{where}: sweep: this config is of several runs; give it to paramtrans run, or Sweep"])
    return validate(located(path, document), registry, where)


def located(path: Path, document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same with the file of hosts that it names found from the folder of the config.

    Args:
        path: The config's file.
        document: What it says.

    Raises:
        StoreError: there is no such home folder.
    """
    zoo = document.get("zoo")
    if isinstance(zoo, dict) and isinstance(given := zoo.get("report_from"), str):
        hosts = at_home(given, "give the path of a file of hosts") if given.startswith("~") else path.parent / given
        return {**document, "zoo": {**zoo, "report_from": str(hosts)}}
    return document


def validate(document: Mapping[str, Any], registry: Registry, where: str = "config") -> Config:
    """A document as a `Config` whose components exist and accept their options.

    Every component's options are validated by its own model and completed by its defaults.

    Args:
        document: As read from TOML.
        registry: Where its components are looked up.
        where: What messages begin with.

    Returns:
        The config, with defaults filled in.

    Raises:
        ConfigError: all mistakes, each with its place.
    """
    mistakes: list[str] = []
    config: Config | None = None
    try:
        config = options.validate(Config, document, f"{where}: ")
        parts = list(config.components())
    except ConfigError as error:
        mistakes += error.problems
        parts = list(well_formed(document)) if isinstance(document, dict) else []
    resolved: dict[str, dict[str, Any]] = {}
    classes: dict[str, Any] = {}
    for path, kind, part in parts:
        try:
            classes[path] = registry.load(kind, part.name)
            beside = type(part).model_fields.keys() - {"name"}
            checked = options.validate(classes[path].Options, part.options, f"{where}: {path}", beside)
            resolved[path] = checked.model_dump(mode="json")
        except ConfigError as error:
            mistakes += error.problems
        except ParamtransError as error:
            mistakes.append(f"{where}: {path}.name: {error}")
    if config is not None:
        mistakes += [f"{where}: {problem}" for problem in validation.problems(config, classes)]
    if mistakes:
        raise ConfigError(mistakes)
    assert config is not None  # or there were mistakes
    return _replace_options(config, resolved)


def _replace_options(config: Config, resolved: dict[str, dict[str, Any]]) -> Config:
    document = config.model_dump(mode="json")
    for path, checked in resolved.items():
        part: Any = document
        for key in path.split("."):
            part = part[int(key)] if isinstance(part, list) else part[key]
        part.update(checked)
    return Config.model_validate(document)
