"""Activations by name, and the names of those that stand in existing modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from torch import nn

Activation = Literal["relu", "relu6", "gelu", "gelu_tanh", "silu", "hardswish", "elu", "tanh", "sigmoid"]

MAKERS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
    "silu": nn.SiLU,
    "hardswish": nn.Hardswish,
    "elu": nn.ELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


def activation_name(activation: Any) -> str | None:
    """The name here of an activation module or function; None for one that is not known.

    Names are trusted: whether a block computes what its adapter says is measured afterwards.
    """
    if getattr(activation, "approximate", "none") == "tanh":
        return "gelu_tanh"
    name = getattr(activation, "__name__", type(activation).__name__).lower().removesuffix("activation")
    return name if name in MAKERS else None
