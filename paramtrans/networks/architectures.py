"""Networks from outside: an architecture by name, and parameters from a file that nobody vouches for."""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import torch
from torch import Tensor, nn

from paramtrans.api.architecture import ArchitectureSource
from paramtrans.errors import ConfigError, ParamtransError, StoreError
from paramtrans.networks.host_network import HostNetwork
from paramtrans.plugins.manager import components
from paramtrans.plugins.registry import Registry
from paramtrans.storage import outside, torch_checkpoint

log = logging.getLogger(__name__)

KIND, FIRST = "architecture", "torchvision"
"""The kind of component, and the source that messages name first."""


WRAPPERS = ("state_dict", "model", "model_state_dict", "net", "params", "ema", "state_dict_ema")
"""Keys of checkpoints under which training scripts keep the parameters, the outermost first."""
LARGEST, FURTHER = 64, 2**28
"""A network named in a file may have this many times the bytes of the file, and so many beside them."""


def build_from_file(architecture: str, size: int, where: str, registry: Registry | None = None) -> nn.Module:
    """The fresh network that a file of `size` bytes names: of what is installed, with options of known, bounded kinds.

    Nothing is fetched from a network. Raises `StoreError`, before any memory is taken, where it is far larger.
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
            asked = sum(tensor.nbytes for tensor in build(architecture, False, registry).state_dict().values())
    except ConfigError as error:
        raise StoreError(f"{where}: {error}") from error
    if asked > LARGEST * size + FURTHER:
        raise StoreError(f"{where}: {architecture[:100]!r} is a network of {asked:,} bytes, far more than is here")
    return build(architecture, False, registry)


def build(architecture: str, files: bool = True, registry: Registry | None = None) -> nn.Module:
    """A fresh network: `torchvision:resnet18`, `torchvision:resnet18?num_classes=10`, `nets.py:factory`, or the host of
    a task with a block in its slot: `task:mnist:basic_block`, `task:mnist:conv?channels=8&block.hidden=3`.

    A file is run as Python, so only a person may name one; `files` says whether one does. Raises `ConfigError`, and
    `UnknownName` for a task or a block that there is not.
    """
    registry = registry or components()
    if is_installed(architecture, registry):
        source, name, arguments = installed(architecture, registry)
        return _called(partial(source.build, name, arguments), architecture)
    place, _, query = architecture.partition("?")
    arguments = {key: _value(value) for key, value in parse_qsl(query)}
    file, _, function = place.rpartition(":")
    if not file or not files:
        raise ConfigError([f"architecture {architecture!r}: expected {_expected(files, registry)}"])
    return _called(partial(_factory(architecture, Path(file), function), **arguments), architecture)


def installed(architecture: str, registry: Registry) -> tuple[ArchitectureSource, str, dict[str, Any]]:
    """The source that an architecture names, what stands behind its colon, and behind its question mark."""
    place, _, query = architecture.partition("?")
    kind, _, name = place.partition(":")
    source: ArchitectureSource = registry.create(KIND, kind)
    return source, name, {key: _value(value) for key, value in parse_qsl(query)}


def is_installed(architecture: str, registry: Registry) -> bool:
    """Whether it comes from what is installed, so that no file is run to build it."""
    source, colon, _ = architecture.partition(":")
    return bool(colon) and any(entry.name == source for entry in registry.of_kind(KIND))


def _expected(files: bool, registry: Registry) -> str:
    """The forms that an architecture may have."""
    sources = sorted(registry.of_kind(KIND), key=lambda entry: entry.name != FIRST)
    forms = ", ".join(f"{entry.name}:{entry.resolve().form}" for entry in sources)
    return f"{forms} or FILE.py:FACTORY" if files else forms


def factory_file(architecture: str, registry: Registry | None = None) -> list[Path]:
    """The Python file that an architecture is made by, if it is."""
    place = architecture.partition("?")[0].rpartition(":")[0]
    return [] if is_installed(architecture, registry or components()) or not place else [Path(place)]


def with_parameters(network: nn.Module, path: Path) -> nn.Module:
    """The network with the parameters of a file; raises `StoreError` where they are not all of its own."""
    own = network.state_dict()
    state = _named_as(own, read_parameters(path), path)
    state |= _tied(network, state)
    for name, tensor in state.items():
        if tensor.is_complex() and name in own and not own[name].is_complex():
            raise StoreError(f"{path}: {name} is complex, and the network's is real; its imaginary part would be lost")
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        if isinstance(network, HostNetwork) and any(name.startswith("source.") for name in state):
            raise StoreError(
                f"{path}: is a file of hosts; paramtrans zoo take {path} OUT writes one of them as a network"
            ) from error
        raise StoreError(f"{path}: does not fit the architecture: {reason(error)}") from error
    kinds = {tensor.dtype for tensor in state.values() if tensor.is_floating_point()}
    return network.to(kinds.pop()) if len(kinds) == 1 else network


def _named_as(own: Mapping[str, Tensor], state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The parameters by the network's own names; what stands before all names of one side alone is a wrapper's."""
    if state.keys() <= own.keys() or not state:
        return state
    for name in [name for name in state if "." in name][:1]:
        for end in [at for at, letter in enumerate(name) if letter == "."]:
            prefix = name[: end + 1]
            cut = {key.removeprefix(prefix): tensor for key, tensor in state.items()}
            if all(key.startswith(prefix) for key in state) and cut.keys() <= own.keys():
                log.warning("%s: %r before all names is left out", path, prefix)
                return cut
    for prefix in dict.fromkeys(key.partition(".")[0] + "." for key in own):
        longer = {f"{prefix}{key}": tensor for key, tensor in state.items()}
        if longer.keys() <= own.keys():
            log.warning("%s: %r is put before all names", path, prefix)
            return longer
    return state


def _tied(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that a file leaves out, because they are one with a tensor that it holds."""
    named = [*network.named_parameters(remove_duplicate=False), *network.named_buffers(remove_duplicate=False)]
    held = {id(tensor): state[name] for name, tensor in named if name in state}
    return {name: held[id(tensor)] for name, tensor in named if name not in state and id(tensor) in held}


def reason(error: Exception) -> str:
    """Why parameters do not fit, without the heading that torch gives and all but the first of many mistakes."""
    lines = [line.strip() for line in str(error).splitlines()]
    more = f" (and {len(lines) - 4} more)" if len(lines) > 4 else ""
    return " ".join(lines[1:4]) + more if len(lines) > 1 else str(error)


def read_parameters(path: Path) -> dict[str, Tensor]:
    """Parameters by name, from safetensors or a torch checkpoint; nothing in the file is ever run.

    A folder holds safetensors, in one file or in several. Raises `StoreError` where the file is missing, damaged, or
    holds anything but tensors.
    """
    if path.is_dir():
        return _shards(path)
    if path.suffix == ".safetensors":
        return outside.tensors(path)
    found = torch_checkpoint.read(path)
    for key in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            log.info("%s: the parameters under %r are taken", path, key)
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise StoreError(f"{path}: holds no dictionary of tensors; save `model.state_dict()`")
    if other := [name for name in found if not isinstance(name, str)]:
        raise StoreError(f"{path}: {str(other[0])[:40]!r} is no name of a tensor; save `model.state_dict()`")
    return dict(found)


def _shards(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder's safetensors."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise StoreError(f"{folder}: holds no .safetensors; name the file with the parameters")
    found: dict[str, Tensor] = {}
    for file in files:
        if again := found.keys() & (read := outside.tensors(file)).keys():
            raise StoreError(f"{file}: holds {min(again)[:80]!r}, as another file of {folder} does; name one file")
        found |= read
    return found


def _factory(architecture: str, path: Path, name: str) -> Callable[..., Any]:
    """A function of a Python file, which is run."""
    spec = importlib.util.spec_from_file_location(f"paramtrans_architecture_{path.stem}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ConfigError([f"architecture {architecture!r}: no such Python file: {path}"])
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for the names in their annotations
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[spec.name]
        found = f"architecture {architecture!r}: {path}: {type(error).__name__}: {error}"
        hint = "; put the folder that it is in on PYTHONPATH" if isinstance(error, ModuleNotFoundError) else ""
        raise ConfigError([found + hint]) from error
    factory = getattr(module, name, None)
    if not callable(factory):
        raise ConfigError([f"architecture {architecture!r}: {path} has no function {name!r} that makes a network"])
    made: Callable[..., Any] = factory
    return made


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
