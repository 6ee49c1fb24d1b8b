"""Running many models at once: the vmap reference, and the fastest layout that fits a module."""

from __future__ import annotations

import logging
from functools import cache, cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _NormBase

from paramtrans.api.specs import TensorKind
from paramtrans.backends import signals

if TYPE_CHECKING:
    from paramtrans.api.adapter import BlockAdapter
    from paramtrans.api.runner import Stacked
    from paramtrans.api.stacking import Params
    from paramtrans.backends.cpu.stacked import CpuStack
    from paramtrans.backends.gpu.stacked import GpuStack
    from paramtrans.backends.signals import SignalStack

logger = logging.getLogger(__name__)


class Vmap:
    """The plain way to run stacked models, against which every faster one is checked: `torch.func.vmap`."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, params: Params, inputs: Tensor, training: bool | None = False) -> Tensor:
        """`training` None: each layer follows its own flag."""
        if training is not None:
            self.module.train(training)

        def run_model(params: Params, inputs: Tensor) -> Tensor:
            output: Tensor = functional_call(self.module, params, (inputs,))
            return output

        # Networks compute in their own precision, whatever a translator that runs them computes in.
        with torch.autocast(inputs.device.type, enabled=False):
            outputs: Tensor = vmap(run_model, randomness="different")(params, inputs)
        return outputs


class Fastest:
    """In float32, the CPU back end, where there is one, or the GPU back end; vmap for all else."""

    def __init__(self, cpu: CpuStack | SignalStack | None, reference: Vmap) -> None:
        self.cpu, self.reference = cpu, reference

    @cached_property
    def gpu(self) -> GpuStack | None:
        """None where Triton, which compiles them, is not installed."""
        if find_spec("triton") is None:
            return None
        from paramtrans.backends.gpu.stacked import GpuStack

        return GpuStack(self.reference.module)

    def __call__(self, params: Params, inputs: Tensor, training: bool | None = False) -> Tensor:
        """`training` None: each layer follows its own flag."""
        run: CpuStack | SignalStack | GpuStack | Vmap = self.reference
        if inputs.dtype == torch.float32 and inputs.device.type == "cpu":
            run = self.cpu or self.reference
        elif inputs.dtype == torch.float32 and inputs.is_cuda and torch.version.hip is None:
            run = self.gpu or self.reference
        return run(params, inputs, training)


class LearnedStatistics:
    """A stack whose running statistics may be predicted: outside training they get gradients too.

    Normalisation layers do not differentiate their running statistics, so these are moved into weight and bias.
    """

    def __init__(self, run: Stacked, module: nn.Module) -> None:
        self.run = run
        norms = {name: child for name, child in module.named_modules() if isinstance(child, _NormBase)}
        self.eps = {f"{name}.": norm.eps for name, norm in norms.items() if norm.affine and norm.track_running_stats}

    def __call__(self, params: Params, inputs: Tensor, training: bool = False) -> Tensor:
        predicted = any(params[f"{norm}running_var"].requires_grad for norm in self.eps)
        return self.run(self._folded(params) if predicted and not training else params, inputs, training)

    def _folded(self, params: Params) -> Params:
        folded = dict(params)
        for norm, eps in self.eps.items():
            mean, variance = params[f"{norm}running_mean"], params[f"{norm}running_var"]
            gain = params[f"{norm}weight"] * torch.rsqrt(variance + eps)
            folded[f"{norm}weight"] = gain * (1 + eps) ** 0.5
            folded[f"{norm}bias"] = params[f"{norm}bias"] - mean * gain
            folded[f"{norm}running_mean"] = torch.zeros_like(mean)
            folded[f"{norm}running_var"] = torch.ones_like(variance)
        return folded


def block_stacked(adapter: BlockAdapter) -> Stacked:
    """The adapter's own layout where it brings one, else the fastest that fits its module."""
    module = adapter.module()
    run = adapter.stacked() or stacked(module)
    has_statistics = any(tensor.kind is TensorKind.NORM_VARIANCE for tensor in adapter.spec.tensors)
    return LearnedStatistics(run, module) if has_statistics else run


def stacked(module: nn.Module) -> Fastest | Vmap:
    """The fastest layout that runs this module: the CPU or GPU back end where all its layers can, else vmap."""
    if not _has_numba():
        return Fastest(None, Vmap(module)) if _runs_on_gpu(module) else Vmap(module)
    from paramtrans.backends.cpu import stacked as cpu  # compiles kernels, so only when something is run

    if cpu.supports(module):
        return Fastest(cpu.CpuStack(module), Vmap(module))
    images = signals.as_images(module)
    if images is not None and cpu.supports(images):
        return Fastest(signals.SignalStack(module, cpu.CpuStack(images)), Vmap(module))
    return Vmap(module)


@cache
def _has_numba() -> bool:
    """Whether the CPU back end can be compiled; says once what it means where they cannot."""
    installed = find_spec("numba") is not None
    if not installed:
        logger.warning("numba is not installed: networks run by torch.func.vmap, which is slower on the CPU")
    return installed


def _runs_on_gpu(module: nn.Module) -> bool:
    if not torch.cuda.is_available() or find_spec("triton") is None:
        return False
    from paramtrans.backends.gpu import stacked as gpu

    return gpu.supports(module)
