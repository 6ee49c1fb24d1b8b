"""Configs of transformers that tie embeddings, which follow where a layer no longer shares its weight."""

from __future__ import annotations

import sys

from torch import nn

from paramtrans_architectures.hugging_face_depth import configs_of, set_everywhere

TIES = "tie_word_embeddings"


def untie_config(network: nn.Module, path: str) -> None:
    """Let the config of a model say that embeddings are not tied; others stay as they are.

    Args:
        network: Is changed.
        path: Of the layer that has a weight of its own now.
    """
    transformers = sys.modules.get("transformers")
    if transformers is None:  # then it is no model of it
        return
    for outer_path, model in network.named_modules():
        if isinstance(model, transformers.PreTrainedModel) and f"{path}.".startswith(outer_path):
            set_everywhere(model, [(type(config), TIES, True, False) for config in configs_of(model.config)])
            return
