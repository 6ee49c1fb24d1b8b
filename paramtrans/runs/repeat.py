"""A run again, from its `run.json` alone: the resolved config with its seeds, and what it was made with."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from paramtrans.config import loading
from paramtrans.config.merge import settle
from paramtrans.config.schema import ELSEWHERE
from paramtrans.plugins.manager import Plugins
from paramtrans.runs import folder
from paramtrans.runs.run import Run
from paramtrans.storage import names
from paramtrans.utils.progress import Reporter

OTHERWISE = "give the config instead"

logger = logging.getLogger(__name__)


def again(path: Path, settings: Sequence[str], reporter: Reporter, loaded: Plugins) -> Run:
    """The run that `path`, a `run.json`, tells of, in a folder of its own; `settings` as with a config.

    Raises `StoreError` where the file is damaged. What is installed in other versions than then is logged.
    """
    record = folder.read_record(path, OTHERWISE, sealed=True)
    name = names.checked(record.name, f"{path}: name")
    for line in differences(record.versions, record.plugins, loaded):
        logger.warning("%s: made with %s; the numbers may differ", path, line)
    document = {key: value for key, value in record.config.items() if key not in ELSEWHERE}
    document["run"] = {"device": _device(record.config)}
    where = str(path)
    config = loading.validate(settle(document, settings, where), loaded.registry(), where)
    return Run(config, f"{name}-again", reporter, loaded, where)


def differences(versions: Mapping[str, str], plugins: Iterable[str], loaded: Plugins) -> list[str]:
    """What was used then and is not here, or is here in another version: "torch 2.11, here 2.14"."""
    here = folder.versions()
    changed = {name: then for name, then in versions.items() if here.get(name) != then}
    lines = [f"{name} {then}, here {here.get(name, 'none')}" for name, then in changed.items()]
    now = {str(provider) for provider in loaded.providers()}
    gone = [plugin for plugin in plugins if plugin not in now and _name(plugin) not in here]
    return lines + [f"plugin {plugin}, which is not here" for plugin in gone]


def _name(plugin: str) -> str:
    return plugin.rpartition(" ")[0]


def _device(document: Mapping[str, Any]) -> Any:
    run = document.get("run")
    return run.get("device", "auto") if isinstance(run, dict) else "auto"
