"""Calibration inputs for `translate` and `inspect`: from a file, or synthetic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from paramtrans.cli.flags import FilePath
from paramtrans.errors import ConfigError

DATA = click.option(
    "--calibrate",
    "data",
    metavar="DATA",
    type=FilePath(),
    help="Unlabelled inputs: .npy, .safetensors (one tensor, or several named as the network's arguments), texts as "
    ".txt or .jsonl, or a folder of images or of recordings (.wav, .flac).",
)
EXAMPLES = click.option(
    "--examples",
    type=click.IntRange(1),
    metavar="N",
    help="Take so many of DATA; 512 texts or images, 64 recordings by default.",
)
LENGTH = click.option(
    "--length",
    type=click.IntRange(2),
    metavar="N",
    help="Tokens of a text (256 by default), seconds of a recording (10).",
)
SEED = click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="For whatever is drawn.")
PROBES = click.option("--probes", metavar="NAME", help="Instead of --calibrate: synthetic inputs, e.g. bn_statistics.")
SHAPE = click.option("--input", "shape", metavar="3,224,224", help="With --probes: the shape of one input.")


def read(data: Path | None, network: Any, architecture: str, drawing: tuple[int | None, int | None, int]) -> list[Any]:
    """Calibration inputs in batches; none without DATA.

    Args:
        data: The file or folder.
        network: What texts, images and recordings are made ready for.
        architecture: What it is made by.
        drawing: `--examples`, `--length` and `--seed`.

    Raises:
        ConfigError: options are given without DATA, or do not go with it.
        DataError: the file is not what it should be.
    """
    from paramtrans.networks.forward.batches import in_size
    from paramtrans.networks.loading.calibration import Drawing, read_inputs

    if data is not None:
        return list(in_size(network, read_inputs(data, network, architecture, Drawing(*drawing))))
    if drawing[:2] != (None, None):
        raise ConfigError(["--examples, --length: say how much is taken of --calibrate DATA, which is not given"])
    return []


def probe_shape(probes: str | None, shape: str | None, data: Path | None) -> tuple[int, ...] | None:
    """The shape of one synthetic input; None without probes.

    Args:
        probes: `--probes`.
        shape: `--input`, numbers with commas between.
        data: `--calibrate`.

    Raises:
        ConfigError: `--input` does not go with `--probes`, or these with `--calibrate`.
    """
    if probes is None and shape is None:
        return None
    if probes is None or shape is None or data is not None:
        raise ConfigError(["--probes NAME and --input SHAPE go together, and stand in the place of --calibrate"])
    sizes = [size.strip() for size in shape.split(",")]
    if not all(size.isdecimal() and int(size) for size in sizes):
        raise ConfigError([f"--input {shape}: expected the shape of one input, such as 3,224,224"])
    return tuple(map(int, sizes))


def draw(network: Any, probes: str, shape: tuple[int, ...], options: dict[str, Any], seed: int) -> list[Any]:
    """Synthetic inputs in batches.

    Args:
        network: What they are drawn for.
        probes: Name of the probes.
        shape: Of one input.
        options: Of the probes.
        seed: What they are drawn from.

    Raises:
        ConfigError: options that the probes do not have.
    """
    from paramtrans.api.options import validate
    from paramtrans.networks.forward.batches import in_size
    from paramtrans.networks.loading.calibration import BATCH
    from paramtrans.networks.loading.synthetic_inputs import draw_probes
    from paramtrans.plugins.manager import components

    registry = components()
    validate(registry.load("probe", probes).Options, options, f"{probes}: ")
    drawn = draw_probes(network, shape, probes, seed=seed, registry=registry, **options)
    return list(in_size(network, drawn.split(BATCH)))
