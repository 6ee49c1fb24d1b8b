"""Translators on disk: a folder with a description in JSON and, for learned ones, weights in safetensors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, Field, ValidationError
from torch import nn

from paramtrans._version import __version__
from paramtrans.api.translator import Translator
from paramtrans.config.components import MAX_PARTS, ComponentConfig
from paramtrans.errors import ConfigError, Damaged, SpecMismatch, StoreError
from paramtrans.plugins.manager import components
from paramtrans.plugins.registry import Registry
from paramtrans.storage import json_files, sealed_params
from paramtrans.translators.base import LearnedTranslator
from paramtrans.utils import memory
from paramtrans.utils.surroundings import pinned

FORMAT = 2
"""Version of a saved translator. 1 was the same without checksums of the description and of the weights in it."""
DESCRIPTION, WEIGHTS = "translator.json", "translator.safetensors"


class Described(BaseModel):
    """The components that a description names."""

    translator: ComponentConfig
    source: ComponentConfig
    target: ComponentConfig
    further: tuple[ComponentConfig, ...] = Field(max_length=MAX_PARTS)


def save_translator(
    folder: Path,
    translator: Translator,
    name: str,
    source: ComponentConfig,
    target: ComponentConfig,
    further: Sequence[ComponentConfig] = (),
) -> None:
    """Write a translator as `load_translator` reads it: JSON and safetensors, each with a checksum.

    Args:
        folder: Where its files go; made if need be, files of these names are replaced.
        translator: What is saved.
        name: The translator's name in configs.
        source: How its source adapter is made.
        target: How its target adapter is made.
        further: How targets of the other families are made that it writes.

    Raises:
        StoreError: the folder cannot be written.
    """
    weights = translator.state_dict() if isinstance(translator, nn.Module) else {}
    sealed_params.save_params(folder / WEIGHTS, weights, {"format": FORMAT})
    description = {
        "format": FORMAT,
        "paramtrans": __version__,
        "translator": {"name": name, **translator.options.model_dump(mode="json")},
        "source": source.model_dump(mode="json"),
        "target": target.model_dump(mode="json"),
        **({"further": [part.model_dump(mode="json") for part in further]} if further else {}),
        "weights_sha256": sealed_params.load_record(folder / WEIGHTS)["sha256"],
    }
    json_files.write_sealed(folder / DESCRIPTION, description)


@pinned()
def load_translator(folder: Path | str, registry: Registry | None = None) -> Translator:
    """A translator from disk, ready to translate. Nothing is unpickled.

    Args:
        folder: Its folder, that of a run, or the name of one that a plugin brings.
        registry: Where its components are looked up; all plugins that are installed unless given.

    Returns:
        The translator, in eval mode.

    Raises:
        StoreError: the folder is missing, damaged or too new.
        UnknownName: no plugin brings one of its components.

    >>> translator = load_translator("runs/mnist_conv_to_conv")  # doctest: +SKIP
    >>> translator = load_translator("mnist_conv_to_conv")  # doctest: +SKIP
    >>> target_blocks = translator.translate(source_blocks)  # doctest: +SKIP
    """
    registry = registry or components()
    folder = find_translator(folder, registry)
    description = _description(folder / DESCRIPTION)
    parts = _parts(description, folder / DESCRIPTION)
    try:
        with memory.out_of_memory_hint(f"{folder / DESCRIPTION}", "it asks for sizes that this machine cannot hold"):
            translator = _created(parts, registry)
    except (ConfigError, SpecMismatch) as error:
        raise StoreError(f"{folder / DESCRIPTION}: {error}; it was damaged, or written for other plugins") from error
    state = translator.state_dict().values() if isinstance(translator, nn.Module) else ()
    weights, record = sealed_params.load_params(folder / WEIGHTS, at_most=sum(tensor.nbytes for tensor in state))
    if description.get("weights_sha256", record["sha256"]) != record["sha256"]:
        raise StoreError(f"{folder / WEIGHTS}: belongs to another {DESCRIPTION} than the one beside it")
    if isinstance(translator, nn.Module):
        try:
            translator.load_state_dict(weights)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise StoreError(f"{folder / WEIGHTS}: does not fit {DESCRIPTION} beside it: {reason}") from error
        translator.eval()
    return translator


def find_translator(name: Path | str, registry: Registry) -> Path:
    """The folder of a translator.

    Args:
        name: That folder, a run's folder, or the name of a pretrained one, in which dashes may stand for underscores.
        registry: Where pretrained translators are looked up.

    Raises:
        StoreError: there is none.
    """
    folder = Path(name)
    for candidate in (folder, folder / "translator"):
        if (candidate / DESCRIPTION).exists():
            return candidate
    pretrained = {entry.name: entry for entry in registry.of_kind("pretrained_translator")}
    if entry := pretrained.get(str(name).replace("-", "_")):
        return Path(registry.load(entry.kind, entry.name))
    offered = (
        f"pretrained translators are {', '.join(sorted(pretrained))}"
        if pretrained
        else "no plugin brings pretrained ones"
    )
    raise StoreError(f"{folder / DESCRIPTION}: there is none; give a translator's folder or a run's ({offered})")


def name_of(kind: str, component: Any, registry: Registry) -> ComponentConfig:
    """How a config would name a component that exists.

    Args:
        kind: What it is: `translator`, `block_adapter`, …
        component: The component.
        registry: Where its class is looked up.

    Raises:
        UnknownName: no plugin announces its class.
    """
    options = component.options.model_dump(mode="json")
    return ComponentConfig.model_validate({"name": registry.name_of(kind, type(component)), **options})


def _description(path: Path) -> dict[str, Any]:
    """The description of a translator, held to its checksum where its format has one."""
    description = json_files.read_json(path)
    format_ = description.get("format") if isinstance(description, dict) else None
    if type(format_) is not int:
        raise StoreError(f"{path}: is no description of a translator")
    json_files.check_format(path, format_, (1, FORMAT))
    if format_ == 1 and json_files.SEAL not in description:
        return dict(description)
    return json_files.unsealed(path, description)


def _parts(description: dict[str, Any], path: Path) -> Described:
    try:
        return Described.model_validate({key: description.get(key, ()) for key in Described.model_fields})
    except ValidationError as error:
        raise Damaged(f"{path}: {error.errors()[0]['msg']}; it was damaged after it was written") from error


def _created(parts: Described, registry: Registry) -> Translator:
    """The translator that the description names, with fresh weights."""
    source, target, *further = (
        registry.create("block_adapter", part.name, **part.options)
        for part in (parts.source, parts.target, *parts.further)
    )
    part = parts.translator
    with torch.random.fork_rng(devices=[]):  # fresh weights are overwritten; the caller's draws stay as they are
        translator: Translator = registry.create("translator", part.name, source, target, **part.options)
        for adapter in further:
            if not isinstance(translator, LearnedTranslator):
                raise SpecMismatch(f"{part.name} writes blocks of one family")
            translator.add_family(adapter)
    return translator
