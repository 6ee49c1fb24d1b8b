"""Networks in eval mode, for good or for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


def to_eval(network: nn.Module) -> nn.Module:
    """The network itself, in eval mode; its own `train` need not return it, as some that freeze layers do not.

    Args:
        network: Is changed.
    """
    network.eval()
    return network


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
