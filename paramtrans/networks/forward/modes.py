"""Networks in eval mode for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def in_eval_mode(*networks: nn.Module) -> Iterator[None]:
    """Run networks as in use, without dropout and with the statistics that they learned; flags are handed back.

    Args:
        networks: They may share modules.
    """
    flags = {module: module.training for network in networks for module in network.modules()}
    try:
        for module in flags:  # as eval() of captured programs is an error
            module.training = False
        yield
    finally:
        for module, flag in flags.items():
            module.training = flag
