"""Models of transformers: built by the config of their folder, and written back as such a folder."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from paramtrans.api.architecture import ArchitectureSource, ExampleKind, Origin
from paramtrans.errors import ConfigError
from paramtrans_architectures import (
    hub_cache,
    hugging_face_audio,
    hugging_face_caches,
    hugging_face_depth,
    hugging_face_gguf,
    hugging_face_inputs,
    hugging_face_names,
    hugging_face_ties,
)
from paramtrans_architectures.alike import Outputs, changed_sizes, first_alike

CONFIG = "config.json"
MOST_NUMBERS = 12
"""Numbers of a config that are tried, in all combinations of up to three beside those that must change."""
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".gguf", ".index.json")
"""Endings of files that hold a model's parameters, which the smaller one has of its own."""
LARGEST = 2**26
"""Bytes of another file that is copied, at most: tokenizers, chat templates, generation settings."""


class HuggingFace(ArchitectureSource):
    """`hf:FOLDER`: the class that the folder's config names, untrained. No code of the folder is ever run."""

    form: ClassVar[str] = "FOLDER"
    has_gguf: ClassVar[bool] = True

    def build(self, name: str, arguments: Mapping[str, Any]) -> nn.Module:
        transformers, folder = _library(name), _folder(name)
        try:
            config = transformers.AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, **arguments
            )
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise ConfigError([f"architecture hf:{name}: {folder / CONFIG} cannot be used: {reason}"]) from error
        network: nn.Module = _fresh_model(config)
        return network

    def own_names(self, network: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return hugging_face_names.own_names(network, state)

    def check_recorded(self, name: str, arguments: Mapping[str, Any]) -> None:
        raise ConfigError(["a folder on the machine where it was written, which no file may name"])

    def origin(self, network: nn.Module, name: str) -> Origin:
        model = hub_cache.model(_folder(name))
        model_name = model or _folder(name).resolve().name
        kind = type(network).__name__
        loading = f'from transformers import {kind}\n\nnetwork = {kind}.from_pretrained("FOLDER")'
        return Origin(model_name, "transformers", model, hub_cache.licence(_folder(name)), loading)

    def text(self, name: str, tokens: Sequence[int]) -> str | None:
        return hugging_face_inputs.words(_folder(name), tokens)

    def inputs(
        self,
        network: nn.Module,
        name: str,
        kind: ExampleKind,
        examples: Iterable[Any],
        count: int,
        length: int | None,
    ) -> Sequence[Mapping[str, Tensor]]:
        if kind == "texts":
            return hugging_face_inputs.of_texts(network, _folder(name), examples, count, length)
        if kind == "audio":
            return hugging_face_audio.of_audio(network, _folder(name), examples, count, length)
        if length is not None:
            raise ConfigError([f"hf:{name}: --length is for texts and recordings, not for images"])
        return hugging_face_inputs.of_images(network, _folder(name), examples, count)

    def shortened(self, network: nn.Module, path: str, gone: int) -> None:
        hugging_face_depth.shorten_config(network, path, gone)

    def lean(self, network: nn.Module, like: nn.Module | None = None) -> None:
        hugging_face_caches.set_caches(network, like)

    def untied(self, network: nn.Module, path: str) -> None:
        hugging_face_ties.untie_config(network, path)

    def save(self, network: nn.Module, name: str, arguments: Mapping[str, Any], folder: Path, outputs: Outputs) -> None:
        transformers = _library(name)
        if not isinstance(network, transformers.PreTrainedModel):
            raise ConfigError([f"--stock: {type(network).__name__} is no model of transformers"])
        smaller = stock(network, outputs)
        with hugging_face_names.quietly():
            smaller.save_pretrained(folder)
        for file in hub_cache.own_files(_folder(name)):
            is_beside = not file.name.endswith(WEIGHTS) and not (folder / file.name).exists()
            if is_beside and file.name != "README.md" and file.stat().st_size <= LARGEST:
                shutil.copyfile(file, folder / file.name)

    def read_gguf(self, network: nn.Module, file: Path) -> nn.Module | None:
        return hugging_face_gguf.read(network, file)


def stock(network: Any, outputs: Outputs) -> Any:
    """A model of transformers that its own class builds from a config alone, equal to one that was made smaller.

    Nothing is known of the architecture: numbers of the config that the original sizes stand in are set to the new
    ones until a model with these shapes comes out that gives the same.

    Args:
        network: The model that was made smaller.
        outputs: What a model gives for some inputs, to compare both.

    Raises:
        ConfigError: no config of this class has these sizes, as where layers differ from each other.
    """
    refusal = (
        f"--stock: no config of {type(network).__name__} has these sizes{{}}; give all layers the same widths (with "
        "--stream also --ratio, the same), leave out what it ties to others, often attention heads (--blocks), or use "
        "paramtrans.load_translated"
    )
    _, model = first_alike(network, _configs(network), _fresh_model, outputs, refusal)
    if getattr(network, "generation_config", None) is not None:
        model.generation_config = copy.deepcopy(network.generation_config)
    return model


def _configs(network: Any) -> Iterator[Any]:
    """Configs with numbers changed: those that sizes of the original have, to the sizes of the smaller one."""
    original = network.config
    with torch.device("meta"):
        pairs = changed_sizes(_fresh_model(original), network)
    numbers = {name: value for name, value in original.to_dict().items() if type(value) is int and value > 1}
    changes = [
        (name, value * new // old)
        for old, new in pairs
        for name, value in numbers.items()
        if (value * new) % old == 0 and old % value == 0
    ]
    changes = list(dict.fromkeys(changes))[:MOST_NUMBERS]
    # A width that is left to be computed from others has to stay as it was.
    heads = getattr(original, "num_attention_heads", None)
    fixed: dict[str, int] = {}
    if isinstance(heads, int) and heads and original.hidden_size % heads == 0 and hasattr(original, "head_dim"):
        fixed = {"head_dim": original.head_dim or original.hidden_size // heads}
    for count in range(len(changes) + 1):
        for chosen in combinations(changes, count):
            if len({name for name, _ in chosen}) < count:
                continue
            config = copy.deepcopy(original)
            for name, value in (*fixed.items(), *chosen):
                setattr(config, name, value)
            yield config


def _fresh_model(config: Any) -> Any:
    """A fresh model of the class that a config names, or of the one that goes with it."""
    import transformers

    classes = (getattr(transformers, name, None) for name in config.architectures or [])
    models = (cls for cls in classes if isinstance(cls, type) and issubclass(cls, transformers.PreTrainedModel))
    chosen = next(models, None)
    if chosen is None:
        return transformers.AutoModel.from_config(config, trust_remote_code=False)
    return chosen(copy.deepcopy(config))


def _library(name: str) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ConfigError(
            [f"architecture hf:{name}: transformers is not installed; pip install paramtrans[hf]"]
        ) from error
    return transformers


def _folder(name: str) -> Path:
    folder = Path(name)
    if not (folder / CONFIG).is_file():
        raise ConfigError([f"architecture hf:{name}: there is no {CONFIG} in that folder; download the model first"])
    return folder
