"""What `translate` writes beside its own file for other programs: ONNX, and programs of torch.export."""

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


def check(onnx: Path | None, export: Path | None, data: Path | None, given: Sequence[Path], force: bool) -> None:
    """Raise before any work is done where one of them cannot be written."""
    from paramtrans.storage import outputs

    for flag, path, ending in (("--onnx", onnx, ".onnx"), ("--export", export, ".pt2")):
        if path is None:
            continue
        if path.suffix != ending:
            raise ConfigError([f"{flag} {path}: must end in {ending}"])
        if data is None:
            raise ConfigError([f"{flag}: takes --calibrate DATA, to follow the network with"])
        outputs.check(path, given, force)


def made(network: Any, batch: Any, onnx: Path | None, export: Path | None) -> dict[Path, bytes]:
    """The content of each file; raises where there is none, so that nothing is written then."""
    from paramtrans.networks import exporting

    contents = {}
    if onnx is not None:
        contents[onnx] = exporting.onnx_bytes(network, batch)
    if export is not None:
        contents[export] = exporting.exported_bytes(network, batch)
    return contents
