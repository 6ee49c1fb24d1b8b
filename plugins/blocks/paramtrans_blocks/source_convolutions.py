"""The convolutions that a part of a network computes: found by running the part, whatever its layers are called."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from paramtrans.api.adapter import Part
from paramtrans_blocks.folding import fold

ARGUMENTS = {
    "conv2d": ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    "batch_norm": ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
}
"""Names of arguments by position."""
PASSED = ("clone", "contiguous", "dropout")
"""Operations that change nothing in eval mode."""


@dataclass(frozen=True)
class Norm:
    """A BatchNorm behind a convolution, in eval mode."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    eps: float


@dataclass(frozen=True)
class Convolution:
    """A dense convolution with zeros around that keeps the size of features, but for its stride."""

    weight: Tensor
    """`[out, in, k, k]`."""
    bias: Tensor | None
    norm: Norm | None = None
    rectified: bool = False
    """Whether a ReLU is behind it."""

    def folded(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias with the BatchNorm folded in."""
        if self.norm is None:
            return self.weight, self.bias
        mean = self.norm.running_mean if self.bias is None else self.norm.running_mean - self.bias
        statistics = {
            "weight": self.norm.weight,
            "bias": self.norm.bias,
            "running_mean": mean,
            "running_var": self.norm.running_var,
        }
        weight, bias = fold(self.weight[None], {name: t[None] for name, t in statistics.items()}, self.norm.eps)
        return weight[0], bias[0]


@dataclass(frozen=True)
class Chain:
    """Convolutions one after the other, and what is added to what they give."""

    layers: tuple[Convolution, ...] = ()
    skip: tuple[Convolution, ...] | None = None
    """Nothing (None), the input (no convolution), or a projection of it (one)."""


@torch.no_grad()
def convolutions_of(part: Part) -> Chain | None:
    """The chain of convolutions that a part is: with BatchNorms and ReLUs between, a skip and a ReLU behind.

    Args:
        part: The part.

    Returns:
        None where the part computes anything else.
    """
    if part.run is None or part.entering.ndim != 4:
        return None
    watch = _Watch(part.entering[:1])
    with watch:
        leaving = part.run(part.entering[:1])
    if watch.last is None or not torch.equal(watch.last[1][:1], leaving):
        return None
    return watch.last[0]


class _Watch(TorchFunctionMode):
    """Follows the features that enter a part through one pass."""

    def __init__(self, entering: Tensor) -> None:
        """`entering`: of one example, by whose values they are known."""
        super().__init__()
        self.entering = entering
        self.last: tuple[Chain, Tensor] | None = None
        """The chain of the last value that has one, and the value."""
        self._chains: dict[int, tuple[Chain, Tensor]] = {}  # with the value, so that its `id` stays its own

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "").strip("_")
        operands = dict(zip(ARGUMENTS.get(name, ()), args, strict=False)) | (kwargs or {})
        # Before: an operation in place changes the values by which features are known.
        chains = [self._chain(value) for value in args[:2]]
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            chain = _behind(name, operands, chains)
            self._chains.pop(id(result), None)
            if chain is not None:
                self._chains[id(result)] = self.last = (chain, result)
        return result

    def _chain(self, value: Any) -> Chain | None:
        """What a value was made of; None where that is no chain."""
        if not isinstance(value, Tensor):
            return None
        if id(value) in self._chains:
            return self._chains[id(value)][0]
        entering = value.shape[1:] == self.entering.shape[1:] and torch.equal(value[:1], self.entering)
        return Chain() if entering else None


def _behind(name: str, operands: dict[str, Any], chains: list[Chain | None]) -> Chain | None:
    """The chain behind an operation, given those of its first two operands."""
    if name in ("add", "iadd", "radd"):
        return _summed(chains)
    chain = chains[0] if chains else None
    if chain is None or name in PASSED:
        return chain
    if name == "conv2d" and chain.skip is None and (layer := _convolution(operands)) is not None:
        return replace(chain, layers=(*chain.layers, layer))
    if not chain.layers:
        return None
    *before, last = chain.layers
    if name == "batch_norm" and last.norm is None and not (last.rectified or chain.skip or operands["training"]):
        return replace(chain, layers=(*before, replace(last, norm=_norm(operands))))
    if name == "relu" and chain.skip is None:
        return replace(chain, layers=(*before, replace(last, rectified=True)))
    return chain if name == "relu" else None


def _summed(chains: list[Chain | None]) -> Chain | None:
    """A chain with what is added to it."""
    if len(chains) != 2 or any(chain is None or chain.skip is not None for chain in chains):
        return None
    skip, branch = sorted((chain for chain in chains if chain is not None), key=lambda chain: len(chain.layers))
    projects = len(skip.layers) == 1 and skip.layers[0].weight.shape[-1] == 1 and not skip.layers[0].rectified
    return replace(branch, skip=skip.layers) if branch.layers and (not skip.layers or projects) else None


def _convolution(operands: dict[str, Any]) -> Convolution | None:
    """A dense convolution that keeps the size of features, but for its stride; None for others."""
    weight, padding = operands["weight"], operands.get("padding", 0)
    sides = tuple(weight.shape[2:])
    same = tuple(side // 2 for side in sides)
    padded = padding == "same" or (padding if isinstance(padding, tuple | list) else (padding, padding)) == same
    dilation = operands.get("dilation", 1)
    dense = operands.get("groups", 1) == 1 and dilation in (1, (1, 1))
    if not dense or not padded or sides[0] != sides[1] or sides[0] % 2 == 0:
        return None
    return Convolution(weight.detach(), _detached(operands.get("bias")))


def _norm(operands: dict[str, Any]) -> Norm:
    mean, variance = operands["running_mean"], operands["running_var"]
    weight, bias = (_detached(operands.get(name)) for name in ("weight", "bias"))
    return Norm(
        torch.ones_like(mean) if weight is None else weight,
        torch.zeros_like(mean) if bias is None else bias,
        mean,
        variance,
        operands["eps"],
    )


def _detached(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach()
