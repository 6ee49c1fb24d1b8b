"""Translated language models as GGUF, by llama.cpp's own converter where that is at hand."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from paramtrans.api.architecture import ArchitectureSource
from paramtrans.errors import ConfigError, SpecMismatch
from paramtrans.networks.forward.activations import Inputs, first_examples
from paramtrans.networks.loading import architectures
from paramtrans.networks.results.stock import outputs_of, save_stock
from paramtrans.plugins.manager import components
from paramtrans.plugins.registry import Registry
from paramtrans.storage import outputs
from paramtrans.utils import boundary

NAMES = ("convert_hf_to_gguf.py", "convert_hf_to_gguf", "convert-hf-to-gguf")
"""What the converter is called where it is installed."""
FOLDER = "LLAMA_CPP_DIR"
"""The environment variable that names a folder of llama.cpp."""
KINDS = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
"""Precisions of a network, as the converter calls them."""
TOLERANCES = {torch.float32: 1e-4}
"""Largest difference of outputs, relative to the largest of them; in half precision 0.02."""

log = logging.getLogger(__name__)


def save_gguf(
    network: nn.Module, architecture: str, path: Path | str, inputs: Inputs, registry: Registry | None = None
) -> None:
    """Write what `translate` returned as GGUF, in the precision that it has.

    It is written as its library does first (`save_stock`), in a folder that goes again, and llama.cpp's converter makes
    the file of that. Where the library reads such files, what it reads has to give the same.

    Args:
        network: The smaller network.
        architecture: What the untranslated network was made by, such as `hf:FOLDER`.
        path: The file; an older one is replaced.
        inputs: A batch that it takes.
        registry: The plugins that architectures come from.

    Raises:
        ConfigError: there is no converter, or the network has no form in its library; nothing is written then.
        SpecMismatch: the converter does not take the network, or the file gives something else.
        StoreError: the file cannot be written.
    """
    path, registry = Path(path).absolute(), registry or components()
    command = converter(architecture, registry)
    outputs.check(path)
    source, name, _ = architectures.installed(architecture, registry)
    with boundary.in_words(f"{path}: cannot be written", "choose another place"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".gguf-", dir=path.parent) as temporary:
            folder, file = Path(temporary) / "stock", Path(temporary) / "model.gguf"
            save_stock(network, architecture, folder, inputs, registry=registry)
            kind = KINDS.get(next(network.parameters()).dtype, "f32")
            _run([*command, str(folder), "--outfile", str(file), "--outtype", kind], source.origin(network, name).model)
            if not file.is_file():
                raise SpecMismatch(f"GGUF: {command[-1]} wrote no file; give it a stock folder (--stock) yourself")
            _check(network, source, file, inputs)
            os.replace(file, path)


def converter(architecture: str, registry: Registry | None = None) -> list[str]:
    """How llama.cpp's converter is called.

    Args:
        architecture: What the untranslated network was made by.
        registry: The plugins that architectures come from.

    Raises:
        ConfigError: there is none, or it takes no networks of this library.
    """
    registry = registry or components()
    is_installed = architectures.is_installed(architecture, registry)
    if not is_installed or not architectures.installed(architecture, registry)[0].has_gguf:
        forms = architectures.forms_of(registry, lambda source: source.has_gguf)
        raise ConfigError([f"GGUF: llama.cpp takes models of --arch {forms or '(no source)'}, and not {architecture}"])
    folder = os.environ.get(FOLDER)
    if folder is not None:
        script = Path(folder) / NAMES[0]
        if not script.is_file():
            raise ConfigError([f"GGUF: {FOLDER}={folder}: holds no {NAMES[0]}; let it name a checkout of llama.cpp"])
        return [sys.executable, str(script)]
    for name in NAMES:
        if program := shutil.which(name):
            return [program]
    raise ConfigError(
        [
            f"GGUF: llama.cpp's converter ({NAMES[0]}) is not on the path; git clone "
            f"https://github.com/ggml-org/llama.cpp, pip install its requirements, and set {FOLDER} to that folder"
        ]
    )


def _run(command: Sequence[str], model: str) -> None:
    """Convert a folder, quietly; nothing is fetched."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    try:
        result = subprocess.run(
            [*command, "--model-name", model], env=environment, capture_output=True, text=True, errors="replace"
        )
    except OSError as error:
        raise SpecMismatch(f"GGUF: {command[0]} cannot be run: {boundary.reason(error)}") from error
    if result.returncode:
        said = [line.strip() for line in result.stderr.splitlines() if line.strip()] or ["it says nothing"]
        raise SpecMismatch(f"GGUF: llama.cpp's converter does not take this network: {said[-1][:300]}")


def _check(network: nn.Module, source: ArchitectureSource, file: Path, inputs: Inputs) -> None:
    """Raise `SpecMismatch` where the library reads something else from a file."""
    loaded = source.read_gguf(network, file)
    if loaded is None:
        log.warning("%s cannot read this GGUF, so that it is not compared with the network", type(source).__name__)
        return
    few = first_examples(inputs, 2)
    tolerance = TOLERANCES.get(next(network.parameters()).dtype, 0.02)
    for output, expected in zip(outputs_of(loaded, few), outputs_of(network, few), strict=True):
        if output.shape != expected.shape or not torch.allclose(
            output.float(), expected.float(), rtol=0, atol=tolerance * max(1e-6, float(expected.abs().max()))
        ):
            raise SpecMismatch("GGUF: gives something else than the network when it is read again; nothing is written")
