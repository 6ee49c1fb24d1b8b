"""A one-file plugin for tests: an adapter that recognises Linear layers with activations between them."""

from __future__ import annotations

from typing import ClassVar

from paramtrans_blocks.linear_chain import LinearChain, LinearChainOptions
from torch import nn

from paramtrans import BlockOptions, Component, Recognised, hookimpl

ACTIVATIONS: dict[type[nn.Module], str] = {nn.ReLU: "relu", nn.Tanh: "tanh"}


class LinearBlocks(LinearChain):
    """Linear, activation, Linear, … at the end of an `nn.Sequential`, behind whatever else stands in it."""

    Options: ClassVar[type[BlockOptions]] = LinearChainOptions

    @classmethod
    def recognise(cls, module: nn.Module) -> list[Recognised]:
        if not isinstance(module, nn.Sequential):
            return []
        layers = dict(module.named_children())
        linears = {path: layer for path, layer in layers.items() if isinstance(layer, nn.Linear)}
        run = [*layers][[*layers].index(next(iter(linears))) :] if linears else []
        between = {type(layers[path]) for path in run[1::2]}
        if len(run) < 3 or run[::2] != [*linears] or len(between) > 1 or not between <= ACTIVATIONS.keys():
            return []
        first, *others = linears.values()
        options = {
            "channels": first.in_features,
            "hidden": [layer.in_features for layer in others],
            "out": others[-1].out_features,
            "activation": ACTIVATIONS[between.pop()],
            "skip": "none",
        }
        return [Recognised(options, {f"fc{i}": path for i, path in enumerate(linears, 1)})]


@hookimpl
def paramtrans_block_adapters() -> list[Component]:
    return [Component("linear_blocks", "Linear layers in a row, for tests", f"{__name__}:LinearBlocks")]
