"""What `translate` writes beside its own file: ONNX and programs of torch.export for others, and a page for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from paramtrans.errors import ConfigError

ONNX = click.option(
    "--onnx", metavar="FILE", type=click.Path(path_type=Path), help="Also as ONNX, checked against onnxruntime."
)
EXPORT = click.option(
    "--export", metavar="FILE.pt2", type=click.Path(path_type=Path), help="Also as torch.export writes it."
)
REPORT = click.option(
    "--report", metavar="FILE.html", type=click.Path(path_type=Path), help="Also a page to read, complete in itself."
)


def check(
    report: Path | None, onnx: Path | None, export: Path | None, data: Path | None, given: Sequence[Path], force: bool
) -> None:
    """Raise before any work is done where one of them cannot be written."""
    from paramtrans.storage import outputs

    for flag, path, ending in (("--report", report, ".html"), ("--onnx", onnx, ".onnx"), ("--export", export, ".pt2")):
        if path is None:
            continue
        if path.suffix != ending:
            raise ConfigError([f"{flag} {path}: must end in {ending}"])
        if data is None and path is not report:
            raise ConfigError([f"{flag}: takes --calibrate DATA, to follow the network with"])
        outputs.check(path, given, force)


def made(network: Any, batch: Any, onnx: Path | None, export: Path | None) -> dict[Path, bytes]:
    """The content of each file; raises where there is none, so that nothing is written then."""
    from paramtrans.networks.results import exporting

    contents = {}
    if onnx is not None:
        contents[onnx] = exporting.onnx_bytes(network, batch)
    if export is not None:
        contents[export] = exporting.exported_bytes(network, batch)
    return contents


def page(network: Any, small: Any, batches: list[Any], losses: Any, architecture: str, facts: dict[str, str]) -> bytes:
    """The page of a translation; `facts` say how it was made."""
    from paramtrans.networks.loading import architectures
    from paramtrans.networks.results import translation_page
    from paramtrans.networks.results.described import describe_blocks
    from paramtrans.networks.results.samples import samples
    from paramtrans.plugins.manager import components

    registry = components()
    known = architectures.is_installed(architecture, registry)
    source, name, _ = architectures.installed(architecture, registry) if known else (None, "", {})
    shown = samples(
        network, small, batches, losses.predicts, lambda tokens: source.text(name, tokens) if source else None
    )
    title = source.origin(network, name).model if source else type(network).__name__
    text = translation_page.page(title, describe_blocks(small), losses, shown, facts)
    return text.encode("utf-8", errors="replace")
