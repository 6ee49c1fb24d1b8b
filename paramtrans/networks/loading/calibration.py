"""Calibration inputs as users have them: arrays, texts and images, drawn by a seed and made ready for a network."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from paramtrans.errors import ConfigError, DataError, StoreError
from paramtrans.networks.forward.activations import Inputs
from paramtrans.networks.loading import architectures
from paramtrans.networks.loading.parameter_files import read_parameters
from paramtrans.plugins.manager import components
from paramtrans.plugins.registry import Registry
from paramtrans.storage import outside
from paramtrans.utils.boundary import reason

BATCH = 32
"""Examples that go through the network at once."""
MOST = 512
"""Texts and images that are taken by default; of arrays, all are."""
TEXTS = (".txt", ".jsonl")
TEXT_KEYS = ("text", "content")
"""Keys under which a line of `.jsonl` keeps its text; the first that it has counts."""
IMAGES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP"}
"""Endings of image files, each with the one format that such a file is read as."""
MAX_TEXTS, MAX_IMAGE, MAX_PIXELS = 2**31, 2**28, 2**26
"""Bytes of a file of texts, bytes of an image, and pixels of one, at most."""


Kind: TypeAlias = Literal["texts", "images"]


@dataclass(frozen=True)
class Drawing:
    """Which examples are taken of those that there are."""

    examples: int | None = None
    """How many at most; of a causal language model, rows of `length` tokens."""
    length: int | None = None
    """Tokens of a text at most."""
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
            `.jsonl` with texts; a folder of images.
        network: What texts and images are made ready for, and whose precision numbers get.
        architecture: What it was made by; its source has the tokenizer, or what becomes of images.
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
            raise ConfigError([f"--length: is for texts; what is in {path} has a length of its own"])
        content = _array(path) if path.suffix == ".npy" else read_parameters(path)
        return _batches(path, content, drawing, _precision(network))
    generator = random.Random(drawing.seed)
    kind: Kind
    examples: Iterable[Any]
    if path.is_dir():
        files = image_files(path)
        generator.shuffle(files)
        kind, examples = "images", map(read_image, files[: drawing.examples or MOST])
    elif path.suffix in TEXTS:
        texts = read_texts(path)
        generator.shuffle(texts)
        kind, examples = "texts", iter(texts)
    else:
        raise DataError(
            f"{path}: calibration inputs are .npy, .safetensors, {', '.join(TEXTS)}, or a folder of images "
            f"({', '.join(IMAGES)})"
        )
    return _made_ready(path, kind, examples, network, architecture, drawing, registry or components())


def _made_ready(
    path: Path,
    kind: Kind,
    examples: Iterable[Any],
    network: nn.Module | None,
    architecture: str | None,
    drawing: Drawing,
    registry: Registry,
) -> list[Inputs]:
    """What the source of an architecture makes of texts or images."""
    if network is None or architecture is None or not architectures.is_installed(architecture, registry):
        raise ConfigError(
            [
                f"{path}: how {kind} become inputs is known of networks of a library alone (--arch hf:, timm:, "
                "torchvision:); make .npy or .safetensors of them as in training"
            ]
        )
    source, name, _ = architectures.installed(architecture, registry)
    batches = source.inputs(network, name, kind, examples, drawing.examples or MOST, drawing.length)
    if not batches:
        shorter = ", or a smaller --length" if kind == "texts" else ""
        raise DataError(f"{path}: makes fewer than two inputs; give more {kind}{shorter}")
    return list(batches)


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
    sizes = {len(tensor) if tensor.ndim else 0 for tensor in tensors.values()}
    if len(sizes) != 1 or not min(sizes):
        raise DataError(f"{path}: all tensors need a first axis of the same length, one entry for each example")
    size = sizes.pop()
    if drawing.examples is not None and drawing.examples < size:
        drawn = torch.tensor(random.Random(drawing.seed).sample(range(size), drawing.examples))
        tensors, size = {name: tensor[drawn] for name, tensor in tensors.items()}, drawing.examples
    pieces = [{name: t[i : i + BATCH] for name, t in tensors.items()} for i in range(0, size, BATCH)]
    return [next(iter(piece.values())) for piece in pieces] if len(tensors) == 1 else [*pieces]


def read_texts(path: Path) -> list[str]:
    """The texts of a file, none of them empty.

    Args:
        path: In `.jsonl`, each line is a text, or a record with one as `text` or `content`. In `.txt`, blank lines part
            texts; where there are none, each line is one.

    Raises:
        DataError: this is no such file, or holds no texts.
    """
    try:
        content = outside.content(path, MAX_TEXTS).decode("utf-8-sig")
    except StoreError as error:
        raise DataError(str(error)) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is no text in UTF-8 ({reason(error)}); save it as such") from error
    lines = content.replace("\r\n", "\n").split("\n")
    if path.suffix == ".jsonl":
        texts = [_text(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    else:
        paragraphs = "\n".join(line.rstrip() for line in lines).strip().split("\n\n")
        texts = paragraphs if len(paragraphs) > 1 else lines
    texts = [text.strip() for text in texts if text.strip()]
    if not texts:
        raise DataError(f"{path}: holds no texts")
    return texts


def _text(path: Path, number: int, line: str) -> str:
    """The text of one line of `.jsonl`."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: line {number} is no JSON ({reason(error)})") from error
    text = next((entry[key] for key in TEXT_KEYS if key in entry), None) if isinstance(entry, dict) else entry
    if not isinstance(text, str):
        raise DataError(
            f"{path}: line {number} holds no text; give a string, or a record with {' or '.join(TEXT_KEYS)}"
        )
    return text


def image_files(folder: Path) -> list[Path]:
    """The images of a folder and of the folders in it, in the order of their names.

    Raises:
        DataError: there are none, or the folder cannot be read.
    """
    try:
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGES and path.is_file())
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {reason(error)}") from error
    if not files:
        raise DataError(f"{folder}: holds no images ({', '.join(IMAGES)})")
    return files


def read_image(path: Path) -> Any:
    """An image in RGB, as Pillow holds it.

    Raises:
        DataError: the file is no image, or has more than `MAX_IMAGE` bytes or `MAX_PIXELS` pixels.
    """
    from io import BytesIO

    from PIL import Image

    try:
        with Image.open(BytesIO(outside.content(path, MAX_IMAGE)), formats=[IMAGES[path.suffix.lower()]]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{path}: {image.width}×{image.height} pixels are too many; make it smaller")
            return image.convert("RGB")
    except StoreError as error:
        raise DataError(str(error)) from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as an image: {reason(error)}") from error


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
