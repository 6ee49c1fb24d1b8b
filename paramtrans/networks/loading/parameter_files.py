"""Parameters of a network from a file that nobody vouches for: by other names, in several files, behind wrappers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn

from paramtrans.errors import StoreError
from paramtrans.networks.loading.host_network import HostNetwork
from paramtrans.storage import exported_archive, json_files, outside, sealed_params, torch_checkpoint
from paramtrans.utils.precision import HALF

log = logging.getLogger(__name__)

OwnNames: TypeAlias = Callable[[nn.Module, Mapping[str, Tensor]], Mapping[str, Tensor]]
"""Parameters by a network's own names, as `ArchitectureSource.own_names` gives them."""
WRAPPERS = (
    "state_dict", "model", "model_state_dict", "model_state", "net", "network", "module", "params", "weights", "ema",
    "state_dict_ema",
)  # fmt: skip
"""Keys of checkpoints under which training scripts keep the parameters, the outermost first."""
NAMED = 3
"""Tensors that a message names, of those that a file lacks."""


def with_parameters(network: nn.Module, path: Path, own_names: OwnNames | None = None) -> nn.Module:
    """The network with the parameters of a file.

    Args:
        network: Is changed.
        path: As `read_parameters` takes it.
        own_names: What the library of the network makes of the names in its files.

    Raises:
        StoreError: the file does not hold all parameters of the network, or others.
    """
    expected = network.state_dict()
    state = _named_as(expected, read_parameters(path), path)
    if own_names is not None:
        state = dict(own_names(network, state))
    state |= _tied(network, state)
    for name, tensor in state.items():
        if tensor.is_meta or tensor.layout is not torch.strided:
            kind = "without values (device meta)" if tensor.is_meta else f"kept as {tensor.layout}"
            raise StoreError(f"{path}: {name} is {kind}; save dense tensors with values")
        if tensor.is_complex() and name in expected and not expected[name].is_complex():
            raise StoreError(f"{path}: {name} is complex, and the network's is real; its imaginary part would be lost")
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        if isinstance(network, HostNetwork) and any(name.startswith("source.") for name in state):
            raise StoreError(
                f"{path}: is a file of hosts; paramtrans zoo take {path} OUT writes one of them as a network"
            ) from error
        if _is_translated(path):
            raise StoreError(
                f"{path}: is a network that was translated already; rebuild it by paramtrans.load_translated, and "
                "translate that, or give the file that it was made of"
            ) from error
        raise StoreError(f"{path}: does not fit the architecture: {reason(error)}") from error
    kinds = {tensor.dtype for tensor in state.values() if tensor.is_floating_point()}
    # Other precisions become the network's own, as calibration inputs do.
    return network.to(kinds.pop()) if len(kinds) == 1 and kinds <= {*HALF} else network


def read_parameters(path: Path) -> dict[str, Tensor]:
    """Parameters by name; nothing in the file is ever run.

    Args:
        path: A safetensors file, a torch checkpoint, an exported program (`.pt2`), or a folder with safetensors in one
            file or in several.

    Raises:
        StoreError: the file is missing, damaged, or holds anything but tensors.
    """
    if path.is_dir():
        return _shards(path)
    if path.suffix == ".safetensors":
        return outside.tensors(path)
    if path.suffix == ".pt2":
        return dict(exported_archive.read(path).weights)
    content = torch_checkpoint.read(path)
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            log.info("%s: the parameters under %r are taken", path, key)
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise StoreError(f"{path}: holds no dictionary of tensors{_kept(content)}; save `model.state_dict()`")
    if no_names := [name for name in content if not isinstance(name, str)]:
        raise StoreError(f"{path}: {str(no_names[0])[:40]!r} is no name of a tensor; save `model.state_dict()`")
    return dict(content)


def _kept(content: object) -> str:
    """What a checkpoint holds instead, for messages."""
    if not isinstance(content, Mapping):
        return f", but a {type(content).__name__}"
    keys = [str(key)[:40] for key in content]
    inside = [key for key in keys if isinstance(content.get(key), Mapping)]
    return f", but {', '.join(keys[:6])}" + (f" (if {inside[0]} has them, save that alone)" if inside else "")


def _is_translated(path: Path) -> bool:
    """Whether the record of a translated network stands beside a file."""
    try:
        record = json_files.read_json(sealed_params.record_path(path))
        return isinstance(record, dict) and "blocks" in record
    except StoreError:
        return False


def _shards(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder's safetensors."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise StoreError(f"{folder}: holds no .safetensors; name the file with the parameters")
    params: dict[str, Tensor] = {}
    for file in files:
        if repeated := params.keys() & (tensors := outside.tensors(file)).keys():
            raise StoreError(f"{file}: holds {min(repeated)[:80]!r}, as another file of {folder} does; name one file")
        params |= tensors
    return params


def _named_as(expected: Mapping[str, Tensor], state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The parameters by the network's own names; what stands before all names of one side alone is a wrapper's."""
    if state.keys() <= expected.keys() or not state:
        return state
    for name in [name for name in state if "." in name][:1]:
        for end in [at for at, letter in enumerate(name) if letter == "."]:
            prefix = name[: end + 1]
            shortened = {key.removeprefix(prefix): tensor for key, tensor in state.items()}
            if all(key.startswith(prefix) for key in state) and shortened.keys() <= expected.keys():
                log.warning("%s: %r before all names is left out", path, prefix)
                return shortened
    for prefix in dict.fromkeys(key.partition(".")[0] + "." for key in expected):
        longer = {f"{prefix}{key}": tensor for key, tensor in state.items()}
        if longer.keys() <= expected.keys():
            log.warning("%s: %r is put before all names", path, prefix)
            return longer
    return state


def _tied(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that a file leaves out, because they are one with a tensor that it holds."""
    named = [*network.named_parameters(remove_duplicate=False), *network.named_buffers(remove_duplicate=False)]
    by_identity = {id(tensor): state[name] for name, tensor in named if name in state}
    return {name: by_identity[id(tensor)] for name, tensor in named if name not in state and id(tensor) in by_identity}


def reason(error: Exception) -> str:
    """Why parameters do not fit: torch's message without its heading, and the first few mistakes alone."""
    lines = [line.strip() for line in str(error).splitlines()]
    more = f" (and {len(lines) - 4} more)" if len(lines) > 4 else ""
    return " ".join(map(_shortened, lines[1:4])) + more if len(lines) > 1 else str(error)


def _shortened(line: str) -> str:
    """A mistake with the first few of the names that it lists."""
    names = line.split(', "')
    more = f" and {len(names) - NAMED} more." if len(names) > NAMED + 1 else ""
    return ', "'.join(names[:NAMED]) + more if more else line
