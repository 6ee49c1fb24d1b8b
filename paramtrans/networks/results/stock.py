"""Translated networks as the library of their architecture writes its own, with a card that says what they are."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from paramtrans.api.architecture import ArchitectureSource
from paramtrans.errors import ConfigError
from paramtrans.networks.files import ATTRIBUTE
from paramtrans.networks.forward.activations import Inputs, call, first_examples
from paramtrans.networks.forward.outputs import named_outputs
from paramtrans.networks.loading import architectures
from paramtrans.networks.losses import Losses
from paramtrans.networks.parts.replacing import ReplacedPart
from paramtrans.networks.results import model_card
from paramtrans.networks.results.described import describe_blocks, steps_of
from paramtrans.networks.units.narrowed import QUERY_KEY, NarrowedGroup
from paramtrans.plugins.manager import components
from paramtrans.plugins.registry import Registry
from paramtrans.storage import files, outputs
from paramtrans.utils import boundary

NARROWER_HEADS = (
    "queries and keys have fewer dimensions (--query-key), and its library computes these, or rotary frequencies, from "
    "other numbers: leave out --query-key, or use paramtrans.load_translated, --export or --onnx"
)
OTHER_PARTS = (
    "parts of it are blocks of another architecture (--to), which it does not know: use paramtrans.load_translated, "
    "--onnx or --export"
)
"""What is said in place of a library's advice, where none of that would help."""


def save_stock(
    network: nn.Module,
    architecture: str,
    folder: Path | str,
    inputs: Inputs,
    losses: Losses | None = None,
    translators: Sequence[str] = (),
    registry: Registry | None = None,
) -> None:
    """Write what `translate` returned as the library does that its architecture comes from, without need of paramtrans.

    Beside it a model card (README.md) says what it came from and what it lost.

    Args:
        network: The smaller network.
        architecture: What the untranslated network was made by, such as `hf:FOLDER`.
        folder: A new or empty folder.
        inputs: A batch that it takes; on two of its examples the library's own network has to give the same.
        losses: What it lost, for the model card.
        translators: What it was translated by, for the model card.
        registry: The plugins that architectures come from.

    Raises:
        ConfigError: the library has no such form, or none for these sizes; nothing is written then.
        StoreError: the folder cannot be written.
    """
    folder, registry = Path(folder), registry or components()
    outputs.check_folder(folder)
    check_source(architecture, registry)
    source, name, arguments = architectures.installed(architecture, registry)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".stock-", dir=folder.parent) as temporary:
        new_folder = Path(temporary) / "made"
        new_folder.mkdir()
        try:
            source.save(network, name, arguments, new_folder, partial(outputs_of, inputs=first_examples(inputs, 2)))
        except ConfigError as error:
            if advice := _advice(network):
                reason = error.problems[0].partition(";")[0]
                raise ConfigError([f"{reason}; {advice}"]) from error
            raise
        origin, blocks = source.origin(network, name), describe_blocks(network, registry)
        card = model_card.page(origin, blocks, losses, steps_of(network), translators)
        files.write_bytes(new_folder / model_card.PAGE, card.encode("utf-8", errors="replace"))
        with boundary.in_words(f"{folder}: cannot be written", "choose another place"):
            if folder.exists():
                folder.rmdir()
            new_folder.replace(folder)


def check_source(architecture: str, registry: Registry | None = None) -> None:
    """Check, before any work is done, that networks of an architecture have a form in their library.

    Args:
        architecture: What the untranslated network is made by.
        registry: The plugins that architectures come from.

    Raises:
        ConfigError: they have none.
    """
    registry = registry or components()
    if not architectures.is_installed(architecture, registry):
        reason = "a network of your own has no form but its own"
    elif type(architectures.installed(architecture, registry)[0]).save is ArchitectureSource.save:
        reason = "its source has no form of its own for smaller networks"
    else:
        return
    raise ConfigError([f"--stock: {architecture}: {reason}; leave out --stock, and use paramtrans.load_translated"])


def _advice(network: nn.Module) -> str | None:
    """What helps a network that its library has no form for; None where the library's own advice may."""
    records = getattr(network, ATTRIBUTE, ())
    if any(isinstance(record, NarrowedGroup) and record.kind == QUERY_KEY for record in records):
        return NARROWER_HEADS
    return OTHER_PARTS if any(isinstance(record, ReplacedPart) for record in records) else None


@torch.no_grad()
def outputs_of(network: nn.Module, inputs: Inputs) -> list[Tensor]:
    """All floating-point tensors that a network gives.

    Args:
        network: In eval mode.
        inputs: A batch that it takes.
    """
    return list(named_outputs(call(network, inputs)).values())
