"""Calibration inputs for `translate` and `inspect`: from a file, or made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from paramtrans.errors import ConfigError, DataError, StoreError

DATA = click.option(
    "--calibrate",
    "data",
    metavar="DATA",
    type=click.Path(path_type=Path),
    help="Unlabelled inputs: .npy, or .safetensors with one tensor, or with several named as the network's arguments.",
)
PROBES = click.option("--probes", metavar="NAME", help="Instead of --calibrate: made-up inputs, e.g. bn_statistics.")
SHAPE = click.option("--input", "shape", metavar="3,224,224", help="With --probes: the shape of one input.")
BATCH = 32
"""Calibration inputs that go through the network at once."""


def read_inputs(path: Path) -> list[Any]:
    """Calibration inputs in batches; raises `DataError` where the file is not what it should be."""
    from tokenize import TokenError

    import numpy
    import torch

    from paramtrans.networks.parameter_files import read_parameters
    from paramtrans.storage import outside
    from paramtrans.utils.boundary import reason

    if path.suffix == ".npy":
        try:
            with outside.opened(path) as file:
                whole: Any = torch.from_numpy(numpy.load(file, allow_pickle=False))
        except StoreError as error:
            raise DataError(str(error)) from error
        except (OSError, ValueError, TypeError, MemoryError, SyntaxError, TokenError, EOFError) as error:
            raise DataError(f"{path}: cannot be read as an array of numbers: {reason(error)}") from error
    elif path.suffix == ".safetensors":
        found = read_parameters(path)
        whole = next(iter(found.values())) if len(found) == 1 else found
    else:
        raise DataError(f"{path}: calibration inputs are .npy or .safetensors")
    sizes = {len(t) if t.ndim else 0 for t in (whole.values() if isinstance(whole, dict) else [whole])}
    if len(sizes) != 1 or not min(sizes):
        raise DataError(f"{path}: all tensors need a first axis of the same length, one entry for each example")
    if isinstance(whole, torch.Tensor) and whole.dtype == torch.float64:  # numpy's default, and no network's
        whole = whole.float()
    pieces = range(0, sizes.pop(), BATCH)
    if isinstance(whole, dict):
        return [{name: tensor[i : i + BATCH] for name, tensor in whole.items()} for i in pieces]
    return [whole[i : i + BATCH] for i in pieces]


def shape_of_made_up(probes: str | None, shape: str | None, data: Path | None) -> tuple[int, ...] | None:
    """What --input says; raises `ConfigError` where it does not go with --probes, or they with --calibrate."""
    if probes is None and shape is None:
        return None
    if probes is None or shape is None or data is not None:
        raise ConfigError(["--probes NAME and --input SHAPE go together, and stand in the place of --calibrate"])
    sizes = [size.strip() for size in shape.split(",")]
    if not all(size.isdecimal() and int(size) for size in sizes):
        raise ConfigError([f"--input {shape}: expected the shape of one input, such as 3,224,224"])
    return tuple(map(int, sizes))


def drawn(network: Any, probes: str, shape: tuple[int, ...], options: dict[str, Any]) -> list[Any]:
    """Made-up inputs in batches."""
    from paramtrans.networks.synthetic_inputs import draw_probes

    return list(draw_probes(network, shape, probes, **options).split(BATCH))
