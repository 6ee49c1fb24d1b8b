"""Inputs for a network of which there are none: probes, drawn for the network itself."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from paramtrans.api.probes import ProbeCase
from paramtrans.errors import SpecMismatch
from paramtrans.networks.forward.activations import call
from paramtrans.networks.forward.modes import to_eval
from paramtrans.plugins.manager import components
from paramtrans.plugins.registry import Registry
from paramtrans.utils import memory
from paramtrans.utils.surroundings import pinned


@pinned()
def draw_probes(
    network: nn.Module,
    shape: tuple[int, ...],
    name: str = "bn_statistics",
    *,
    seed: int = 0,
    registry: Registry | None = None,
    **options: Any,
) -> Tensor:
    """Synthetic inputs, to calibrate a translation on where there are no real ones.

    Args:
        network: What they are drawn for.
        shape: Of one input.
        name: Of the probes. `bn_statistics` finds inputs that suit the network's own BatchNorms, in the units
            that it takes (Yin et al. 2020, DeepInversion, arXiv 1912.08795); the others are values in [0, 1].
        seed: For whatever is drawn.
        registry: The plugins that probes come from.
        **options: Of the probes.

    Returns:
        `[count, *shape]`.

    Raises:
        SpecMismatch: the network or the shape does not suit these probes.
        DataError: the network does not take inputs of this shape.

    >>> inputs = draw_probes(network, (3, 224, 224), count=32)  # doctest: +SKIP
    >>> smaller = translate(network, calibrate=inputs.split(16))  # doctest: +SKIP
    """
    if not shape or min(shape) < 1:
        raise SpecMismatch(f"the shape of one input is of positive numbers, such as 3,224,224; not {list(shape)}")
    probes = (registry or components()).create("probe", name, **options)
    network = to_eval(copy.deepcopy(network))
    with memory.out_of_memory_hint(f"inputs of {'×'.join(map(str, shape))}", "make them smaller, or fewer"):
        with torch.no_grad():
            call(network, torch.zeros(1, *shape))  # says it where the network does not take them
        drawn: Tensor = probes.draw(ProbeCase(tuple(shape), torch.Generator().manual_seed(seed), network=network))
    return drawn
