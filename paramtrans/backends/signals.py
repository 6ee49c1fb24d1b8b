"""Signals run as images of height one, so that the layouts of images run convolutions over signals too."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Protocol

from torch import Tensor, nn
from torch.nn.modules.utils import _single

if TYPE_CHECKING:
    from paramtrans.api.stacking import Params

SIGNAL, IMAGE = 4, 5
"""Axes of stacked features: `[models, batch, channels, length]`, and with a height."""


class Stack(Protocol):
    """What runs many models in a fast layout."""

    def __call__(self, params: Params, inputs: Tensor, training: bool | None = False) -> Tensor: ...


class SignalStack:
    """A module over signals, run by what runs `as_images` of it.

    Args:
        module: The architecture.
        run: Runs the module over images.
    """

    def __init__(self, module: nn.Module, run: Stack) -> None:
        self.run = run
        layers = module.named_modules()
        self.kernels = {f"{name}.weight".lstrip(".") for name, layer in layers if type(layer) is nn.Conv1d}

    def __call__(self, params: Params, inputs: Tensor, training: bool | None = False) -> Tensor:
        """As any stack; statistics are updated in the tensors that are given."""
        of_images = {name: t.unsqueeze(-2) if name in self.kernels else t for name, t in params.items()}
        outputs = self.run(of_images, inputs.unsqueeze(-2) if inputs.ndim == SIGNAL else inputs, training)
        return outputs.squeeze(-2) if outputs.ndim == IMAGE else outputs


def as_images(module: nn.Module) -> nn.Module | None:
    """A copy in which layers over signals are those over images of height one.

    It is for layouts that know all operations of a module; code of another kind may count axes.

    Args:
        module: The architecture.

    Returns:
        None where nothing in it convolves signals, or something looks at images.
    """
    kinds = {type(layer) for layer in module.modules()}
    if nn.Conv1d not in kinds or nn.Conv2d in kinds:
        return None
    whole = nn.Sequential(deepcopy(module))
    for parent in list(whole.modules()):
        for name, layer in list(parent.named_children()):
            setattr(parent, name, _as_image(layer))
    return whole[0]


def _as_image(layer: nn.Module) -> nn.Module:
    """A layer over images of height one that does the same; others as they are."""
    if type(layer) is nn.Conv1d:
        return nn.Conv2d(
            layer.in_channels,
            layer.out_channels,
            _beside(layer.kernel_size),
            _beside(layer.stride),
            layer.padding if isinstance(layer.padding, str) else _beside(layer.padding, above=0),
            _beside(layer.dilation),
            layer.groups,
            layer.bias is not None,
            layer.padding_mode,
        )
    if type(layer) is nn.BatchNorm1d:
        options = (layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
        return nn.BatchNorm2d(layer.num_features, *options).train(layer.training)
    if type(layer) is nn.MaxPool1d:
        kernel, stride, dilation = _beside(layer.kernel_size), _beside(layer.stride), _beside(layer.dilation)
        padding = _beside(layer.padding, above=0)
        return nn.MaxPool2d(kernel, stride, padding, dilation, layer.return_indices, layer.ceil_mode)
    if type(layer) is nn.AvgPool1d:
        kernel, stride, padding = _beside(layer.kernel_size), _beside(layer.stride), _beside(layer.padding, above=0)
        return nn.AvgPool2d(kernel, stride, padding, layer.ceil_mode, layer.count_include_pad)
    if type(layer) is nn.AdaptiveAvgPool1d:
        return nn.AdaptiveAvgPool2d(_beside(layer.output_size))
    return layer


def _beside(size: int | tuple[int, ...], above: int = 1) -> tuple[int, int]:
    """A size along a signal as one of an image."""
    return (above, _single(size)[0])
