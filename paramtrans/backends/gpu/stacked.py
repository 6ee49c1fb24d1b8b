"""Run and train many small networks of one architecture at once, on a GPU.

Stock kernels pad a handful of channels to sixteen or more, and read and write every value several times. Here each
program works on one model and a tile of positions, holds the sums of all its output channels, and does what follows a
convolution in the same pass where it can. `GpuStack` runs a module so, in float32 without reduced precision.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from paramtrans.backends.gpu.layout import GpuLayout
from paramtrans.backends.lowering import can_lower, execute, lower


def supports(module: nn.Module) -> bool:
    """Whether every layer of the module can run so."""
    return can_lower(module, GpuLayout())


class GpuStack:
    """Calls `module` for a stack of models.

    Args:
        module: The architecture; its own parameters are not used.
    """

    def __init__(self, module: nn.Module) -> None:
        self._lowered = lower(module, GpuLayout())

    def __call__(self, params: dict[str, Tensor], inputs: Tensor, training: bool | None = False) -> Tensor:
        """Outputs of all models, `[models, batch, ...]`, all float32 on one device.

        Where batch statistics are used, running ones are updated in place. `training` None follows each layer's flag.
        """
        for name, tensor in {**params, "inputs": inputs}.items():
            if tensor.dtype != torch.float32:
                raise TypeError(f"{name} is {tensor.dtype}; this layout needs torch.float32")
            if tensor.ndim == 0 or len(tensor) != len(inputs):
                raise ValueError(f"{name} has shape {tuple(tensor.shape)}, but inputs hold {len(inputs)} models")
        return execute(self._lowered, params, training, None, inputs)
