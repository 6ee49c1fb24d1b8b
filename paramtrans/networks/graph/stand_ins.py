"""What stands in for a network's parameters in a proof, so that every unit counts there.

The values are made while an operation reads them: a copy of all parameters would be as large as the network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from paramtrans.networks.graph.masked import in_precision, is_lower
from paramtrans.networks.graph.narrow import Retained, smaller


@dataclass(frozen=True)
class StandIns:
    """A network whose parameters are read as others."""

    network: nn.Module
    scales: Mapping[str, float]
    """What weights are multiplied by."""
    constants: Mapping[str, Tensor]
    """What parameters become that are constant."""

    def read(
        self, network: nn.Module, retained: Retained | None = None, precision: torch.dtype | None = None
    ) -> TorchFunctionMode:
        """Within it operations read what stands in for the parameters.

        Args:
            network: This network, or a copy without some units.
            retained: The indices that stay of each tensor that became smaller.
            precision: In which tensors of a lower one are read; None: in their own.
        """
        values: dict[int, Callable[[], Tensor]] = {}
        for name, tensor in (*network.named_parameters(), *network.named_buffers()):
            if not tensor.is_floating_point():
                continue
            constant = self.constants.get(name)
            if constant is not None and retained and name in retained:
                constant = smaller(constant, retained[name])
            scale, rises = self.scales.get(name, 1.0), precision is not None and is_lower(tensor.dtype, precision)
            if constant is not None or scale != 1.0 or rises:
                value = tensor.detach() if constant is None else constant
                values[id(tensor)] = partial(_value, value, scale, precision)
        return _Read(values)


def stand_ins(network: nn.Module) -> StandIns:
    """Parameters with which every unit of a network counts: constant ones (ones, zeros, tiny scales) become random, and
    weights as large as those of layers that keep the size of features. With smaller ones attention looks at all tokens
    alike, so that a wrong number of heads would hardly show; with larger ones deep networks enlarge rounding until
    nothing else is left.

    Args:
        network: In eval mode.
    """
    generator = torch.Generator().manual_seed(0)
    scales, constants = dict[str, float](), dict[str, Tensor]()
    for name, parameter in network.named_parameters():
        if not parameter.is_floating_point() or parameter.numel() < 2:
            continue
        values = parameter.detach().float()
        deviation, largest = float(values.std()), float(values.abs().max())
        if deviation <= 1e-3 * max(1e-3, largest) or largest < 1e-3:
            constants[name] = (0.5 + torch.rand(parameter.shape, generator=generator)).to(parameter.detach())
        elif parameter.ndim > 1:
            scales[name] = (parameter.numel() / len(parameter)) ** -0.5 / deviation
    return StandIns(network, scales, constants)


def _value(tensor: Tensor, scale: float, precision: torch.dtype | None) -> Tensor:
    value: Tensor = in_precision(tensor, precision)
    return value if scale == 1.0 else value * scale


class _Read(TorchFunctionMode):
    """Gives operations other tensors for those of these `id`s."""

    def __init__(self, values: Mapping[int, Callable[[], Tensor]]) -> None:
        super().__init__()
        self.values = values

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map(self._read, (args, kwargs or {}))
        return func(*args, **kwargs)

    def _read(self, leaf: Any) -> Any:
        value = self.values.get(id(leaf)) if isinstance(leaf, Tensor) else None
        return leaf if value is None else value()
