"""Run and train many small networks of one architecture at once, on CPU.

The values of 16 models lie side by side as the last axis of every array, so that each
arithmetic instruction serves 16 models. One of these places, in an array or in a vector
register, is a lane (a "vector lane"). `supports` says whether a module can run so; `CpuStack` runs it.
"""

import torch
from torch import Tensor, nn

from paramtrans.backends.cpu.arrays import Enter, Leave, Memory
from paramtrans.backends.cpu.layout import CpuLayout
from paramtrans.backends.lowering import can_lower, execute, lower


def supports(module: nn.Module) -> bool:
    """Whether every layer of the module can run so."""
    return can_lower(module, CpuLayout())


class CpuStack:
    """Calls `module` for a stack of models.

    Args:
        module: The architecture; its own parameters are not used.
    """

    def __init__(self, module: nn.Module) -> None:
        self._lowered = lower(module, CpuLayout())
        self._memory = Memory()

    def __call__(self, params: dict[str, Tensor], inputs: Tensor, training: bool | None = False) -> Tensor:
        """Outputs of all models, `[models, batch, ...]`.

        Args:
            params: Stacked parameters and buffers, each `[models, *shape]`, float32, on CPU.
                Where batch statistics are used, running ones are updated in place.
            inputs: `[models, batch, ...]`, float32, on CPU.
            training: Whether batch normalisation uses batch statistics; None follows each
                layer's own `training` flag.
        """
        _check(params, inputs)
        results = execute(self._lowered, params, training, self._memory, Enter.apply(inputs, self._memory))
        outputs: Tensor = Leave.apply(results, len(inputs), self._memory)
        return outputs


def _check(params: dict[str, Tensor], inputs: Tensor) -> None:
    for name, tensor in {**params, "inputs": inputs}.items():
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
            raise TypeError(f"{name} is {tensor.dtype} on {tensor.device}; lanes need torch.float32 on cpu")
        if tensor.ndim == 0 or len(tensor) != len(inputs):
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, but inputs hold {len(inputs)} models")
