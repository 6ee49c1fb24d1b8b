"""What `inspect` and `translate` share: a user's own network from a file, and columns to print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from paramtrans.cli.flags import FilePath
from paramtrans.errors import ConfigError

MODEL = click.argument("model", metavar="MODEL", type=FilePath())
ARCHITECTURE = click.option(
    "--arch",
    "architecture",
    metavar="SOURCE:NAME|FILE.py:FACTORY",
    help="What makes the network: torchvision:NAME, timm:NAME, hf:FOLDER, export:FILE.pt2, task:TASK:BLOCK, or a "
    "function of yours. An exported program (MODEL.pt2) needs none.",
)
BLOCKS = click.option(
    "--blocks", default="*", metavar="PATTERN", help="Paths of groups of units or blocks, with * and between commas."
)


CAPTURED = click.option(
    "--captured",
    is_flag=True,
    help="Take the program that torch.export captures of the network: numbers in its code follow there (with DATA).",
)


def architecture_of(model: Path, architecture: str | None) -> str:
    """What makes the network of a file: what `--arch` says, or the file itself, where it is an exported program.

    Args:
        model: The file.
        architecture: `--arch`.

    Raises:
        ConfigError: the file does not say how its network is made.
    """
    if architecture is not None:
        return architecture
    if model.suffix != ".pt2":
        from paramtrans.networks.loading.architectures import forms_of
        from paramtrans.plugins.manager import components

        forms = forms_of(components())
        raise ConfigError([f"{model} holds parameters; say what makes the network: --arch {forms} or FILE.py:FACTORY"])
    return f"export:{model}"


def read_network(model: Path, architecture: str) -> Any:
    """A user's network in eval mode, with the parameters of a file.

    Args:
        model: The file, as `read_parameters` takes it.
        architecture: What makes the network, as `--arch` takes it.

    Raises:
        ConfigError: no network is made by this name.
        StoreError: the parameters do not fit.
    """
    from paramtrans.networks.forward.modes import to_eval
    from paramtrans.networks.loading import architectures, parameter_files
    from paramtrans.utils import memory

    memory.in_one_pool()

    own_names = architectures.own_names(architecture)
    return to_eval(parameter_files.with_parameters(architectures.build(architecture), model, own_names))


def as_captured(network: Any, batches: list[Any]) -> Any:
    """The program of a network, in its place.

    Args:
        network: In eval mode.
        batches: Calibration inputs, of which the first is used.

    Raises:
        ConfigError: there are none.
        SpecMismatch: `torch.export` cannot follow the network.
    """
    from paramtrans.networks.graph.whole_program import as_program

    if not batches:
        raise ConfigError(["--captured: takes --calibrate DATA, to follow the network with"])
    return as_program(network, batches[0])


def named_targets(texts: tuple[str, ...]) -> dict[str, str] | None:
    """For patterns of paths the block adapter that takes their place; None without `--to`.

    Args:
        texts: `PATTERN=NAME` each.

    Raises:
        ConfigError: a text is no such pair, or a pattern is given twice.
    """
    for text in texts:
        if not text.partition("=")[2]:
            raise ConfigError([f"--to {text}: expected PATTERN=NAME, such as layer3.*=bottleneck"])
    patterns = [text.partition("=")[0] for text in texts]
    if twice := [pattern for pattern in patterns if patterns.count(pattern) > 1]:
        raise ConfigError([f"--to {twice[0]}: is given twice; the first pattern that matches a path counts"])
    return dict(text.split("=", 1) for text in texts) or None


def joined_sizes(sizes: list[int]) -> str:
    """Sizes with × between them."""
    return "×".join(map(str, sizes))


def columns(sides: str, *rows: tuple[str, ...]) -> None:
    """Print rows as columns; nothing is cut off or folded.

    Args:
        sides: For each column `<` or `>`: where its cells stand.
        *rows: Cells.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
    click.echo()
