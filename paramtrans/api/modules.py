"""What a module is made of: its tensors with their kinds, and fresh parameters for many of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from paramtrans.api.specs import TensorKind, TensorSpec

if TYPE_CHECKING:
    import torch
    from torch import nn

    from paramtrans.api.stacking import Params


def initial(build: Callable[[], nn.Module], seeds: Sequence[int], device: torch.device | str = "cpu") -> Params:
    """Fresh models as stacked parameters and statistics (without counters).

    Args:
        build: Makes one model; what it draws comes from torch's global generator, whose state is kept.
        seeds: One for each model.
        device: Where the stack is put.

    Returns:
        Tensors `[models, *shape]`, in `state_dict` order.
    """
    import torch

    states = []
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # not those of all devices, each of which notes a stack trace
            module = build()
            state = module.state_dict()
        states.append({spec.name: state[spec.name] for spec in tensor_specs(module)})
    return {name: torch.stack([state[name] for state in states]).to(device) for name in states[0]}


def trained_names(module: nn.Module) -> set[str]:
    """Names of the tensors that an optimiser moves."""
    return {name for name, _ in module.named_parameters()}


def tensor_specs(module: nn.Module) -> tuple[TensorSpec, ...]:
    """The tensors of a module in `state_dict` order, without counters, each with its kind."""
    from torch import nn

    norms = {name for name, child in module.named_modules() if isinstance(child, nn.modules.batchnorm._NormBase)}
    specs = []
    for name, tensor in module.state_dict().items():
        owner, _, leaf = name.rpartition(".")
        if leaf == "num_batches_tracked":
            continue
        kind = _NORM_KINDS[leaf] if owner in norms else _kind(leaf, tensor.ndim)
        specs.append(TensorSpec(name, tuple(tensor.shape), kind))
    return tuple(specs)


_NORM_KINDS = {
    "weight": TensorKind.NORM_WEIGHT,
    "bias": TensorKind.NORM_BIAS,
    "running_mean": TensorKind.NORM_MEAN,
    "running_var": TensorKind.NORM_VARIANCE,
}


def _kind(leaf: str, ndim: int) -> TensorKind:
    return TensorKind.BIAS if leaf.endswith("bias") and ndim == 1 else TensorKind.WEIGHT
