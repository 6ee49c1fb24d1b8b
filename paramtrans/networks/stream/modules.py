"""Modules that a rotation changes: LayerNorms that become RMSNorms, layers with a new bias, weights of their own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeGuard

from torch import nn

from paramtrans.api.architecture import ArchitectureSource
from paramtrans.errors import DataError
from paramtrans.plugins.registry import Registry


@dataclass(frozen=True)
class ModuleChange:
    """What became of a module, as far as it is more than other values in its tensors."""

    module: str
    kind: Literal["rms_norm", "bias", "untied"]
    """A LayerNorm without its mean and its bias; a Linear that has a bias now; a weight that others no longer share."""


def repeat(network: nn.Module, changes: Iterable[ModuleChange], registry: Registry) -> None:
    """Change the modules of a network as a rotation did; what their tensors hold is set by others.

    Args:
        network: Is changed.
        changes: What a rotation did.
        registry: Architecture sources that are asked to let their configs follow.

    Raises:
        DataError: the network has no such modules.
    """
    for change in changes:
        try:
            module = network.get_submodule(change.module)
        except AttributeError as error:
            raise DataError(f"there is no module {change.module!r} in this network") from error
        if change.kind == "rms_norm" and isinstance(module, nn.LayerNorm):
            _become_rms_norm(network, module)
        elif change.kind == "bias" and takes_bias(module):
            bias = module.weight.new_zeros(len(module.weight))
            module.bias = nn.Parameter(bias, module.weight.requires_grad)
        elif change.kind == "untied" and isinstance(weight := getattr(module, "weight", None), nn.Parameter):
            module.weight = nn.Parameter(weight.detach().clone(), weight.requires_grad)
            for name, _ in registry.usable("architecture"):
                source: ArchitectureSource = registry.create("architecture", name)
                source.untied(network, change.module)
        else:
            raise DataError(f"{change.module}: a {type(module).__name__} cannot change so ({change.kind})")


def takes_bias(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether a layer without a bias takes one."""
    return isinstance(module, nn.Linear) and module.bias is None


def _become_rms_norm(network: nn.Module, module: nn.LayerNorm) -> None:
    """The module stays the object that it is, with its hooks; PyTorch's fast path, which takes a mean, is shut."""
    module.__class__ = nn.RMSNorm  # type: ignore[assignment]
    module.register_parameter("bias", None)
    for encoder in network.modules():
        if isinstance(encoder, nn.TransformerEncoderLayer) and module in (encoder.norm1, encoder.norm2):
            encoder.activation_relu_or_gelu = False
