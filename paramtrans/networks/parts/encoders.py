"""PyTorch's encoders with parts of another architecture, whose attributes they would ask for."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from paramtrans.utils.fast_path import layer_by_layer


class LayerByLayer(nn.TransformerEncoderLayer):
    """An `nn.TransformerEncoderLayer` that never takes PyTorch's fast path, for which it looks into its attention.

    Layers are not made of this class, they become it: `keep_layer_by_layer`.
    """

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """As of `nn.TransformerEncoderLayer`."""
        with layer_by_layer():
            return super().forward(*args, **kwargs)


class LayerAfterLayer(nn.TransformerEncoder):
    """An `nn.TransformerEncoder` that does not look into its first layer; it becomes this class, as above."""

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
    ) -> Tensor:
        """As of `nn.TransformerEncoder`."""
        masks = {"src_mask": mask, "src_key_padding_mask": src_key_padding_mask, "is_causal": bool(is_causal)}
        for layer in self.layers:
            src = layer(src, **masks)
        return src if self.norm is None else self.norm(src)


BECOMES = {nn.TransformerEncoderLayer: LayerByLayer, nn.TransformerEncoder: LayerAfterLayer}


def keep_layer_by_layer(network: nn.Module, path: str) -> None:
    """Encoders and their layers around a module become those that do not look into it.

    Args:
        network: Is changed.
        path: Of the module.
    """
    while path:
        path = path.rpartition(".")[0]
        module = network.get_submodule(path)
        if type(module) in BECOMES:
            module.__class__ = BECOMES[type(module)]
