"""Numbers of layers in the configs of transformers, which follow where layers were left out of a model."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from paramtrans_architectures import hugging_face_names

Change = tuple[type, str, Any, Any]
"""Class of a config, the name of a value, the old one and the new one."""
LISTS = ("layer", "block")
"""A list of a config with an entry for each layer has one of these words in its name."""


def shorten_config(network: nn.Module, path: str, gone: int) -> None:
    """Let the config of a model follow where a layer was taken out of one of its lists; others stay as they are.

    Nothing is known of the architecture: numbers that are the length of the list become one less until the model's
    class makes a model with the same names of parameters.

    Args:
        network: Is changed.
        path: Of the list.
        gone: Which of the list's layers went.
    """
    transformers = sys.modules.get("transformers")
    if transformers is None:  # then it is no model of it
        return
    for outer_path, model in network.named_modules():
        if isinstance(model, transformers.PreTrainedModel) and f"{path}.".startswith(outer_path):
            _follow(model, len(network.get_submodule(path)) + 1, gone)  # type: ignore[arg-type]
            return


def _follow(model: Any, before: int, gone: int) -> None:
    """Set the first numbers with which the model's class makes such a model."""
    names = model.state_dict().keys()
    for changes in _candidates(configs_of(model.config), before, gone):
        config = copy.deepcopy(model.config)
        _set(configs_of(config), changes)
        try:
            with torch.device("meta"), hugging_face_names.quietly():
                candidate = type(model)(config)
        except Exception:  # a config that its class refuses
            continue
        if candidate.state_dict().keys() == names:
            set_everywhere(model, changes)
            return


def _candidates(configs: list[Any], before: int, gone: int) -> Iterator[list[Change]]:
    """Changes that may be those of one layer less."""
    for config in configs:
        values: dict[str, Any] = {name: getattr(config, name, None) for name in config.to_dict()}
        lists: list[Change] = [
            (type(config), name, value, [*value[:gone], *value[gone + 1 :]])
            for name, value in values.items()
            if isinstance(value, list) and len(value) == before and any(word in name for word in LISTS)
        ]
        for name, value in values.items():
            if type(value) is int and value == before:
                yield [(type(config), name, before, before - 1), *lists]
        for name, value in values.items():
            for index, item in enumerate(value if isinstance(value, list) else []):
                if type(item) is int and item == before:
                    yield [(type(config), name, value, [*value[:index], before - 1, *value[index + 1 :]])]


def set_everywhere(model: Any, changes: list[Change]) -> None:
    """Set values in all configs of a model's modules, which become its own: others may have been made by these.

    Args:
        model: Is changed.
        changes: Which values.
    """
    copies: dict[int, Any] = {}
    for module in model.modules():
        if "config" in vars(module):
            module.config = copy.deepcopy(module.config, copies)
            _set(configs_of(module.config), changes)


def _set(configs: list[Any], changes: list[Change]) -> None:
    """Set values where configs of that class have the old ones."""
    for kind, name, old, new in changes:
        for config in configs:
            if type(config) is kind and getattr(config, name, None) == old:
                setattr(config, name, new)


def configs_of(config: Any) -> list[Any]:
    """A config and those inside it.

    Args:
        config: Of a model.
    """
    from transformers import PretrainedConfig

    return [config, *(value for value in vars(config).values() if isinstance(value, PretrainedConfig))]
