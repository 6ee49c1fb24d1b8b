"""Layers of a network take other sizes in place, so that all that is no size stays: hooks, flags, kinds, counters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from paramtrans.errors import SpecMismatch


def put_layer(network: nn.Module, path: str, fresh: nn.Module) -> None:
    """Give a layer of a network the tensors and sizes of a fresh one of its kind; one of another kind takes its place.

    Args:
        network: It is changed.
        path: Dotted path of the layer.
        fresh: Where tensors and sizes come from; in the network's precision, and where it is, afterwards.

    Raises:
        SpecMismatch: it is of another kind, and hooks inside of what stands there would be lost.
    """
    before = network.get_submodule(path)
    for parameter in before.parameters():
        fresh.to(parameter)
        break
    if same_kind(before, fresh):
        for layer, fresh_layer in zip(before.modules(), fresh.modules(), strict=True):
            _resize(layer, fresh_layer)
        return
    take_place(network, path, fresh)


def take_place(network: nn.Module, path: str, fresh: nn.Module) -> None:
    """Put a module of another kind where one stands; what is called before and after that stays.

    Args:
        network: It is changed.
        path: Dotted path of the module.
        fresh: What is to stand there.

    Raises:
        SpecMismatch: hooks inside of what stands there would be lost.
    """
    before = network.get_submodule(path)
    if hooked := [name for name, module in before.named_modules() if name and hooks(module)]:
        raise SpecMismatch(
            f"{path}: {hooked[0]} in it has hooks, which a block of another kind cannot keep; remove them, or leave "
            "the block out"
        )
    for name in HOOKS:
        getattr(fresh, name).update(getattr(before, name))
    network.set_submodule(path, fresh)


HOOKS = (
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
)
"""Where a module keeps what is called before and after it."""


def hooks(module: nn.Module) -> bool:
    """Whether something is called before or after a module."""
    return bool(module._forward_pre_hooks or module._forward_hooks)


def same_kind(before: nn.Module, fresh: nn.Module) -> bool:
    """Whether a layer, with all in it, is of a fresh one's class, or of one of its own with the same tensors."""
    pairs = list(zip(before.named_modules(), fresh.named_modules(), strict=False))
    if len(pairs) != sum(1 for _ in before.modules()) or len(pairs) != sum(1 for _ in fresh.modules()):
        return False
    return all(
        name == fresh_name and isinstance(layer, type(fresh_layer)) and {*_tensors(layer)} == {*_tensors(fresh_layer)}
        for (name, layer), (fresh_name, fresh_layer) in pairs
    )


def unlike(network: nn.Module, layers: Mapping[str, str], fresh: nn.Module) -> str | None:
    """Why layers of a network are no layers of a fresh block, whose tensors they have to have and no others; or None.

    Args:
        network: Any.
        layers: Layers of the block, each with its path in the network.
        fresh: The block.
    """
    for layer, path in layers.items():
        before = network.get_submodule(path)
        tensors, wanted = (module.state_dict() for module in (before, fresh.get_submodule(layer)))
        kind = f"{path} is a {type(before).__name__}"
        if lacking := [name for name in wanted if name not in tensors]:
            return f"{kind} without {', '.join(lacking[:3])}"
        if more := [name for name in tensors if name not in wanted]:
            return f"{kind} with tensors of its own ({', '.join(more[:3])})"
        if resized := [name for name in wanted if tensors[name].shape != wanted[name].shape]:
            return f"{kind} whose {resized[0]} is {list(tensors[resized[0]].shape)}"
    return None


def _tensors(module: nn.Module) -> Iterator[str]:
    """Names of a module's own tensors that are there."""
    for slots in (module._parameters, module._buffers):
        yield from (name for name, tensor in slots.items() if tensor is not None)


def _resize(layer: nn.Module, fresh: nn.Module) -> None:
    """One layer, without those in it."""
    for name, parameter in fresh._parameters.items():
        if (trained := layer._parameters.get(name)) is not None and parameter is not None:
            layer._parameters[name] = nn.Parameter(_as(trained, parameter), trained.requires_grad)
    for name, buffer in fresh._buffers.items():
        if (before := layer._buffers.get(name)) is not None and buffer is not None and buffer.ndim:  # counters go on
            layer._buffers[name] = _as(before, buffer)
    for name, value in vars(fresh).items():
        numbers = type(value) is int or (isinstance(value, tuple) and all(type(number) is int for number in value))
        if numbers and type(vars(layer).get(name)) is type(value):
            setattr(layer, name, value)


def _as(before: Tensor, after: Tensor) -> Tensor:
    """A tensor's values in the memory format of the one before."""
    last = before.ndim == 4 and before.is_contiguous(memory_format=torch.channels_last) and not before.is_contiguous()
    values = after.detach()
    return values.contiguous(memory_format=torch.channels_last) if last else values
