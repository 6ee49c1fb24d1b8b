"""Calibration inputs as users have them: arrays, texts, images and recordings, drawn by a seed, ready for a network."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from paramtrans.api.architecture import ArchitectureSource, ExampleKind
from paramtrans.errors import ConfigError, DataError, StoreError
from paramtrans.networks.forward.activations import Inputs
from paramtrans.networks.loading import architectures
from paramtrans.networks.loading.audio_files import AUDIO, read_audio
from paramtrans.networks.loading.image_files import IMAGES, read_image
from paramtrans.networks.loading.parameter_files import read_parameters
from paramtrans.networks.loading.text_files import TEXTS, read_texts
from paramtrans.plugins.manager import components
from paramtrans.plugins.registry import Registry
from paramtrans.storage import outside
from paramtrans.utils.boundary import reason

BATCH = 32
"""Examples that go through the network at once."""
MOST: dict[ExampleKind, int] = {"texts": 512, "images": 512, "audio": 64}
"""Examples of each kind that are taken by default; of arrays, all are."""


@dataclass(frozen=True)
class Drawing:
    """Which examples are taken of those that there are."""

    examples: int | None = None
    """How many at most; of a causal language model, rows of `length` tokens."""
    length: int | None = None
    """Tokens of a text, or seconds of a recording, at most."""
    seed: int = 0
    """They are drawn at random by it, without repetition."""


def read_inputs(
    path: Path | str,
    network: nn.Module | None = None,
    architecture: str | None = None,
    drawing: Drawing | None = None,
    registry: Registry | None = None,
) -> list[Inputs]:
    """Calibration inputs in batches.

    Args:
        path: `.npy`; `.safetensors` with one tensor, or with several named as the network's arguments; `.txt` or
            `.jsonl` with texts; a folder of images, or of recordings (`.wav`, `.flac`).
        network: What these are made ready for, and whose precision numbers get.
        architecture: What it was made by; its source has the tokenizer, or what becomes of images and recordings.
        drawing: How many, how long, by which seed.
        registry: The plugins that architectures come from.

    Returns:
        Batches as the network takes them: a tensor, or arguments by name.

    Raises:
        DataError: the file is not what it should be.
        ConfigError: the architecture has no inputs of this kind.
    """
    path, drawing = Path(path), drawing or Drawing()
    if path.suffix in (".npy", ".safetensors") and not path.is_dir():
        if drawing.length is not None:
            raise ConfigError([f"--length: is for texts and recordings; what is in {path} has a length of its own"])
        content = _array(path) if path.suffix == ".npy" else read_parameters(path)
        return _batches(path, content, drawing, _precision(network))
    generator = random.Random(drawing.seed)
    kind: ExampleKind
    examples: Iterable[Any]
    if path.is_dir():
        kind, files = _files(path)
        generator.shuffle(files)
        examples = map(read_image if kind == "images" else read_audio, files)
    elif path.suffix in TEXTS:
        texts = read_texts(path)
        generator.shuffle(texts)
        kind, examples = "texts", iter(texts)
    else:
        raise DataError(
            f"{path}: calibration inputs are .npy, .safetensors, {', '.join(TEXTS)}, or a folder of images "
            f"({', '.join(IMAGES)}) or recordings ({', '.join(AUDIO)})"
        )
    return _made_ready(path, kind, examples, network, architecture, drawing, registry or components())


def _made_ready(
    path: Path,
    kind: ExampleKind,
    examples: Iterable[Any],
    network: nn.Module | None,
    architecture: str | None,
    drawing: Drawing,
    registry: Registry,
) -> list[Inputs]:
    """What the source of an architecture makes of texts, images or recordings."""
    if network is None or architecture is None or not architectures.is_installed(architecture, registry):
        forms = architectures.forms_of(registry, lambda source: source.inputs is not ArchitectureSource.inputs)
        raise ConfigError(
            [
                f"{path}: how {kind} become inputs is known of networks of a library alone (--arch {forms}); make .npy "
                "or .safetensors of them as in training"
            ]
        )
    source, name, _ = architectures.installed(architecture, registry)
    batches = source.inputs(network, name, kind, examples, drawing.examples or MOST[kind], drawing.length)
    if not batches:
        shorter = ", or a smaller --length" if kind == "texts" else ""
        raise DataError(f"{path}: makes fewer than two inputs; give more {kind}{shorter}")
    return [_in_precision(batch, _precision(network)) for batch in batches]


def _in_precision(batch: Inputs, precision: torch.dtype | None) -> Inputs:
    """A batch whose floating-point numbers have the precision of the network."""
    if isinstance(batch, Mapping):
        return {name: _in_precision(value, precision) for name, value in batch.items()}
    return batch.to(precision) if isinstance(batch, Tensor) and batch.is_floating_point() and precision else batch


def _files(folder: Path) -> tuple[ExampleKind, list[Path]]:
    """The images or the recordings of a folder and of the folders in it, in the order of their names."""
    try:
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {reason(error)}") from error
    images, recordings = ([path for path in paths if path.suffix.lower() in kinds] for kinds in (IMAGES, AUDIO))
    if images and recordings:
        raise DataError(f"{folder}: holds both images and recordings; give a folder of what the network takes")
    if not images and not recordings:
        raise DataError(f"{folder}: holds no images ({', '.join(IMAGES)}), and no recordings ({', '.join(AUDIO)})")
    return ("images", images) if images else ("audio", recordings)


def _array(path: Path) -> Tensor:
    """The numbers of a `.npy`; raises `DataError` where it holds something else."""
    from tokenize import TokenError

    import numpy

    try:
        with outside.opened(path) as file:
            return torch.from_numpy(numpy.load(file, allow_pickle=False))
    except StoreError as error:
        raise DataError(str(error)) from error
    except (OSError, ValueError, TypeError, MemoryError, SyntaxError, TokenError, EOFError) as error:
        raise DataError(f"{path}: cannot be read as an array of numbers: {reason(error)}") from error


def _precision(network: nn.Module | None) -> torch.dtype | None:
    """The precision that all parameters of a network have; None where they have several."""
    parameters = network.parameters() if network is not None else ()
    precisions = {parameter.dtype for parameter in parameters if parameter.is_floating_point()}
    return precisions.pop() if len(precisions) == 1 else None


def _batches(
    path: Path, content: Tensor | dict[str, Tensor], drawing: Drawing, precision: torch.dtype | None
) -> list[Inputs]:
    """Examples of one tensor, or of several with a first axis of the same length, in batches."""
    tensors = content if isinstance(content, dict) else {"": content}
    # Doubles are numpy's default, and hardly a network's; of bfloat16 numpy knows nothing.
    doubles = precision or torch.float32
    tensors = {
        name: t.to(doubles if t.dtype == torch.float64 else precision or t.dtype) if t.is_floating_point() else t
        for name, t in tensors.items()
    }
    if not all(tensor.ndim for tensor in tensors.values()):
        raise DataError(f"{path}: holds a single number; inputs have a first axis, with an entry for each example")
    sizes = {len(tensor) for tensor in tensors.values()}
    if not min(sizes, default=0):
        raise DataError(f"{path}: holds no inputs; give tensors whose first axis has an entry for each example")
    if len(sizes) != 1:
        raise DataError(f"{path}: all tensors need a first axis of the same length, one entry for each example")
    size = sizes.pop()
    if drawing.examples is not None and drawing.examples < size:
        drawn = torch.tensor(random.Random(drawing.seed).sample(range(size), drawing.examples))
        tensors, size = {name: tensor[drawn] for name, tensor in tensors.items()}, drawing.examples
    pieces = [{name: t[i : i + BATCH] for name, t in tensors.items()} for i in range(0, size, BATCH)]
    return [next(iter(piece.values())) for piece in pieces] if len(tensors) == 1 else [*pieces]


def in_groups(examples: Iterable[Any], size: int = BATCH) -> Iterator[Sequence[Any]]:
    """Examples in groups of `size`; the last group has those that are left."""
    group: list[Any] = []
    for example in examples:
        group.append(example)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
