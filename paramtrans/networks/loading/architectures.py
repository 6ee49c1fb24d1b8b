"""Networks by name: what stands behind `--arch`, or in a file that nobody vouches for."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import torch
from torch import nn

from paramtrans.api.architecture import ArchitectureSource
from paramtrans.errors import ConfigError, ParamtransError, StoreError
from paramtrans.networks.loading.parameter_files import OwnNames
from paramtrans.plugins.manager import components
from paramtrans.plugins.registry import Registry
from paramtrans.utils.near import did_you_mean
from paramtrans.utils.source_file import source_spec

KIND, FIRST = "architecture", "torchvision"
"""The kind of component, and the source that messages name first."""


LARGEST, FURTHER = 64, 2**28
"""A network named in a file may have `LARGEST` times the bytes of the file, and `FURTHER` bytes more."""


def build_from_file(architecture: str, size: int, where: str, registry: Registry | None = None) -> nn.Module:
    """The fresh network that a file names: of an installed source, with options of known, bounded kinds.

    Nothing is fetched from the internet.

    Args:
        architecture: What the file says, as `--arch` takes it.
        size: Bytes of the file.
        where: Names the file in messages.
        registry: The plugins that architectures come from.

    Raises:
        StoreError: there is no such network, or it is far larger than the file. No memory is taken for it.
    """
    registry = registry or components()
    try:
        source, name, arguments = installed(architecture, registry)
        source.check_recorded(name, arguments)
    except ConfigError as error:
        raise StoreError(
            f"{where}: {architecture[:100]!r}: {error}; name the architecture yourself (network=, --arch)"
        ) from error
    try:
        with torch.device("meta"), torch.no_grad():
            size_in_memory = sum(tensor.nbytes for tensor in build(architecture, False, registry).state_dict().values())
    except ConfigError as error:
        raise StoreError(f"{where}: {error}") from error
    if size_in_memory > LARGEST * size + FURTHER:
        raise StoreError(
            f"{where}: {architecture[:100]!r} is a network of {size_in_memory:,} bytes, far more than is here"
        )
    return build(architecture, False, registry)


def build(architecture: str, files: bool = True, registry: Registry | None = None) -> nn.Module:
    """A fresh network.

    Args:
        architecture: `torchvision:resnet18`, `torchvision:resnet18?num_classes=10`, `nets.py:factory`, or the host of a
            task with a block in its slot: `task:mnist:basic_block`, `task:mnist:conv?channels=8&block.hidden=3`.
        files: Whether a Python file may be named. It is run, so only a person may name one.
        registry: The plugins that architectures come from.

    Returns:
        The network, in the mode that its maker leaves it in.

    Raises:
        ConfigError: no network is made by this name.
        UnknownName: there is no such task or block.
    """
    registry = registry or components()
    if is_installed(architecture, registry):
        source, name, arguments = installed(architecture, registry)
        return _called(partial(source.build, name, arguments), architecture)
    source_and_name, arguments = named_options(architecture)
    file, _, function = source_and_name.rpartition(":")
    if not file or not files:
        raise ConfigError([f"architecture {architecture!r}: expected {_expected(files, registry)}"])
    near = did_you_mean(file.partition(":")[0], [entry.name for entry in registry.of_kind(KIND)])
    return _called(partial(_factory(architecture, Path(file), function, near), **arguments), architecture)


def installed(architecture: str, registry: Registry) -> tuple[ArchitectureSource, str, dict[str, Any]]:
    """What an architecture names: its source, the name behind the colon, and the options behind the question mark.

    Args:
        architecture: As `--arch` takes it.
        registry: The plugins that architectures come from.

    Raises:
        UnknownName: there is no such source.
    """
    source_and_name, arguments = named_options(architecture)
    kind, _, name = source_and_name.partition(":")
    source: ArchitectureSource = registry.create(KIND, kind)
    return source, name, arguments


def own_names(architecture: str, registry: Registry | None = None) -> OwnNames | None:
    """What an installed source makes of the names in its library's files; None for a network of one's own."""
    registry = registry or components()
    return installed(architecture, registry)[0].own_names if is_installed(architecture, registry) else None


def lean(network: nn.Module, registry: Registry, like: nn.Module | None = None) -> nn.Module:
    """Let a network keep nothing for later calls, or, with `like`, what that one keeps.

    Args:
        network: A copy, which may be changed.
        registry: The plugins that architectures come from.
        like: A network whose ways it takes again.

    Returns:
        The same.
    """
    for name, _ in registry.usable(KIND):
        source: ArchitectureSource = registry.create(KIND, name)
        source.lean(network, like)
    return network


def named_options(text: str) -> tuple[str, dict[str, Any]]:
    """A name and the options behind its question mark: `NAME?hidden=8&kernel=5`."""
    name, _, query = text.partition("?")
    return name, {key: _value(value) for key, value in parse_qsl(query)}


def is_installed(architecture: str, registry: Registry) -> bool:
    """Whether an architecture comes from an installed source, so that no file is run to build it."""
    source, colon, _ = architecture.partition(":")
    return bool(colon) and any(entry.name == source for entry in registry.of_kind(KIND))


def _expected(files: bool, registry: Registry) -> str:
    """The forms that an architecture may have."""
    forms = forms_of(registry)
    return f"{forms} or FILE.py:FACTORY" if files else forms


def forms_of(registry: Registry, able: Callable[[type[ArchitectureSource]], bool] = lambda source: True) -> str:
    """The forms that architectures of installed sources have, as messages name them.

    Args:
        registry: The plugins that architectures come from.
        able: Whether a source is meant; by default all are.
    """
    sources = sorted(registry.usable(KIND), key=lambda source: source[0] != FIRST)
    return ", ".join(f"{name}:{source.form}" for name, source in sources if able(source))


def factory_file(architecture: str, registry: Registry | None = None) -> list[Path]:
    """The Python file that makes an architecture; none where an installed source does."""
    path = architecture.partition("?")[0].rpartition(":")[0]
    return [] if is_installed(architecture, registry or components()) or not path else [Path(path)]


def _factory(architecture: str, path: Path, name: str, near: str) -> Callable[..., Any]:
    """A function of a Python file, which is run; `near` is what else may have been meant, where there is no file."""
    spec = source_spec(f"paramtrans_architecture_{path.stem}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ConfigError([f"architecture {architecture!r}: no such Python file: {path}{near}"])
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for the names in their annotations
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[spec.name]
        problem = f"architecture {architecture!r}: {path}: {type(error).__name__}: {error}"
        hint = "; put the folder that it is in on PYTHONPATH" if isinstance(error, ModuleNotFoundError) else ""
        raise ConfigError([problem + hint]) from error
    factory = getattr(module, name, None)
    if not callable(factory):
        raise ConfigError([f"architecture {architecture!r}: {path} has no function {name!r} that makes a network"])
    make_network: Callable[..., Any] = factory
    return make_network


def _called(make: Callable[[], Any], architecture: str) -> nn.Module:
    try:
        network = make()
    except ParamtransError:
        raise
    except Exception as error:
        raise ConfigError([f"architecture {architecture!r}: {type(error).__name__}: {error}"]) from error
    if not isinstance(network, nn.Module):
        raise ConfigError([f"architecture {architecture!r}: gave {type(network).__name__}, not an nn.Module"])
    return network


def _value(text: str) -> Any:
    """An argument as JSON where it is some, else as text."""
    try:
        return json.loads(text)
    except ValueError:
        return text
