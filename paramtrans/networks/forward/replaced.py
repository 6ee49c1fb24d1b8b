"""Modules that compute something else for a while."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn


def replace_forward(module: nn.Module, forward: Callable[..., Any]) -> Callable[[], None]:
    """Let a module compute something else.

    Args:
        module: Its hooks stay; a `forward` of its own, as wrappers of libraries set it, comes back.
        forward: What it computes from now on.

    Returns:
        What undoes it.
    """
    given = vars(module).get("forward")
    vars(module)["forward"] = forward

    def undo() -> None:
        if given is None:
            del vars(module)["forward"]
        else:
            vars(module)["forward"] = given

    return undo
