"""Configs of transformers that let models keep keys and values for tokens to come."""

from __future__ import annotations

import sys

from torch import nn

from paramtrans_architectures.hugging_face_depth import configs_of

CACHES = "use_cache"


def set_caches(network: nn.Module, like: nn.Module | None) -> None:
    """Let models keep no keys and values, or do so as another network does; networks of other libraries stay.

    Args:
        network: Is changed.
        like: The other network; None for no caches at all.
    """
    transformers = sys.modules.get("transformers")
    if transformers is None:  # then it is no model of it
        return
    others = {} if like is None else dict(like.named_modules())
    for path, model in network.named_modules():
        if not isinstance(model, transformers.PreTrainedModel):
            continue
        other = others.get(path)
        values = [getattr(config, CACHES, False) for config in configs_of(other.config)] if other is not None else []
        for number, config in enumerate(configs_of(model.config)):
            if hasattr(config, CACHES):
                setattr(config, CACHES, values[number] if number < len(values) else False)
