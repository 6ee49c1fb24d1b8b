"""Principal axes of a residual stream, from what the layers that read it are given.

SliceGPT (arXiv 2401.15024), section 3.3, with one basis for the whole network, so that no block needs another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from paramtrans.networks.forward.activations import Inputs, call
from paramtrans.networks.forward.attention import with_plain_attention
from paramtrans.networks.forward.lockstep import positional, weight_position
from paramtrans.utils.fast_path import layer_by_layer


class _Moments(TorchFunctionMode):
    """Adds up second moments of what layers are given, each value once however many layers read it."""

    def __init__(self, layers: Mapping[int, str], sums: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.layers, self.sums = layers, sums
        self.rows = dict.fromkeys(sums, 0)
        self._last: Any = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = positional(func, args, kwargs or {})
        position = weight_position(func, args, self.layers)
        if position is not None and args[position - 1] is not self._last:
            self._last = args[position - 1]
            self._add(self.layers[id(args[position])], self._last, "conv" in func.__name__)
        return func(*args, **kwargs)

    def _add(self, stream: str, entering: Tensor, channels_second: bool) -> None:
        with torch._C.DisableTorchFunction():
            rows = (entering.movedim(1, -1) if channels_second else entering).reshape(-1, len(self.sums[stream]))
            rows = rows.double()
            rows = rows / rows.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-30)
            self.sums[stream].add_(rows.mT @ rows)
            self.rows[stream] += len(rows)


@torch.no_grad()
def second_moments(
    network: nn.Module, batches: Iterable[Inputs], readers: Mapping[int, str], sizes: Mapping[str, int]
) -> dict[str, Tensor]:
    """Mean products of units of what layers read, every row brought to a mean square of one, as norms do.

    Args:
        network: In eval mode, with norms that have no weights.
        batches: Inputs, gone through once.
        readers: Weights of the layers by their `id`, each with the name of its stream.
        sizes: Units of each stream.

    Returns:
        For each stream `[units, units]` in float64; zeros where no layer was reached.
    """
    device = next(network.parameters()).device
    sums = {name: torch.zeros(size, size, dtype=torch.double, device=device) for name, size in sizes.items()}
    moments = _Moments(readers, sums)
    with layer_by_layer(), with_plain_attention(network):
        for batch in batches:
            with moments:
                call(network, batch)
    return {name: total / max(1, moments.rows[name]) for name, total in sums.items()}


def principal_axes(moments: Tensor) -> tuple[Tensor, Tensor]:
    """The axes along which a stream varies most, in order.

    Args:
        moments: `[units, units]`.

    Returns:
        Mean square along each axis, `[units]`, decreasing; the axes as columns, `[units, units]`, orthonormal, each
        with its largest entry positive.
    """
    energies, axes = torch.linalg.eigh(moments)
    energies, axes = energies.flip(0).clamp_min(0), axes.flip(1)
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    return energies, axes * largest.sign()
