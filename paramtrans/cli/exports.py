"""What `translate` writes beside its own file: ONNX and programs of torch.export for others, and a page for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from paramtrans.cli.flags import FilePath
from paramtrans.errors import ConfigError

ONNX = click.option("--onnx", metavar="FILE", type=FilePath(), help="Also as ONNX, checked against onnxruntime.")
EXPORT = click.option("--export", metavar="FILE.pt2", type=FilePath(), help="Also as torch.export writes it.")
REPORT = click.option("--report", metavar="FILE.html", type=FilePath(), help="Also a page to read, complete in itself.")


def check(
    report: Path | None,
    onnx: Path | None,
    export: Path | None,
    data: Path | None,
    read_files: Sequence[Path],
    force: bool,
) -> None:
    """Check, before any work is done, that these files can be written.

    Args:
        report: The page.
        onnx: The ONNX file.
        export: The program of torch.export.
        data: Calibration inputs, which ONNX and export need.
        read_files: Files that the command reads.
        force: Write even over these.

    Raises:
        ConfigError: a path has the wrong ending, or there are no inputs.
        StoreError: a file cannot be written, or should not be.
    """
    from paramtrans.storage import outputs

    for flag, path, ending in (("--report", report, ".html"), ("--onnx", onnx, ".onnx"), ("--export", export, ".pt2")):
        if path is None:
            continue
        if path.suffix != ending:
            raise ConfigError([f"{flag} {path}: must end in {ending}"])
        if data is None and path is not report:
            raise ConfigError([f"{flag}: takes --calibrate DATA, to follow the network with"])
        outputs.check(path, read_files, force)


def check_output(output: Path, architecture: str, captured: bool, read_files: list[Path], force: bool) -> None:
    """Check, before any work is done, that the translated network can be written.

    Args:
        output: Where it goes.
        architecture: What makes the untranslated network.
        captured: Whether it is written as a program.
        read_files: Files that the command reads.
        force: Write even over these.

    Raises:
        ConfigError: the path has the wrong ending.
        StoreError: the file cannot be written, or should not be.
    """
    from paramtrans.networks.loading.architectures import factory_file
    from paramtrans.storage import outputs, sealed_params

    ending = ".pt2" if captured else ".safetensors"
    if output.suffix != ending:
        raise ConfigError(
            [f"-o {output}: must end in {ending}{', as --captured writes a program' if captured else ''}"]
        )
    for path in (output,) if captured else (output, sealed_params.record_path(output)):
        outputs.check(path, [*read_files, *factory_file(architecture)], force)


def check_stock(stock: Path | None, data: Path | None, read_files: list[Path]) -> None:
    """Check, before any work is done, that the folder of `--stock` can be written.

    Args:
        stock: The folder, if wanted.
        data: Calibration inputs, which it needs.
        read_files: Files that the command reads.

    Raises:
        ConfigError: there are no inputs.
        StoreError: the folder cannot be written.
    """
    from paramtrans.storage import outputs

    if stock is None:
        return
    outputs.check_folder(stock, read_files)
    if data is None:
        raise ConfigError(["--stock: takes --calibrate DATA, to hold the library's own network to this one"])


def contents(network: Any, batch: Any, onnx: Path | None, export: Path | None) -> dict[Path, bytes]:
    """The content of each file, so that nothing is written where one of them cannot be made.

    Args:
        network: The translated network.
        batch: Calibration inputs.
        onnx: The ONNX file, if wanted.
        export: The program of torch.export, if wanted.

    Raises:
        SpecMismatch: the network has no such form.
        ConfigError: what ONNX takes is not installed.
    """
    from paramtrans.networks.results import exporting

    content_of = {}
    if onnx is not None:
        content_of[onnx] = exporting.onnx_bytes(network, batch)
    if export is not None:
        content_of[export] = exporting.exported_bytes(network, batch)
    return content_of


def page(network: Any, small: Any, batches: list[Any], losses: Any, architecture: str, facts: dict[str, str]) -> bytes:
    """The page of a translation.

    Args:
        network: The untouched network.
        small: The translated one.
        batches: Calibration inputs.
        losses: What was lost.
        architecture: What the untouched network is made by.
        facts: How it was made: names and values.
    """
    from paramtrans.networks.loading import architectures
    from paramtrans.networks.results import translation_page
    from paramtrans.networks.results.described import describe_blocks
    from paramtrans.networks.results.samples import samples
    from paramtrans.plugins.manager import components

    registry = components()
    is_installed = architectures.is_installed(architecture, registry)
    source, name, _ = architectures.installed(architecture, registry) if is_installed else (None, "", {})
    shown = samples(
        network, small, batches, losses.predicts, lambda tokens: source.text(name, tokens) if source else None
    )
    title = source.origin(network, name).model if source else type(network).__name__
    text = translation_page.page(title, describe_blocks(small), losses, shown, facts)
    return text.encode("utf-8", errors="replace")
