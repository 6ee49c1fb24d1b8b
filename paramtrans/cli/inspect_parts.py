"""What `paramtrans inspect --to` says: the parts that a family of blocks could take the place of."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from paramtrans.cli import answer
from paramtrans.cli.networks import columns
from paramtrans.errors import ConfigError, printable
from paramtrans.utils.counts import counted

if TYPE_CHECKING:
    from paramtrans.networks.parts.fits import PartFit
    from paramtrans.plugins.registry import Registry

REASONS = 4
"""Reasons that are printed, at most; those of most modules come first."""


def show_parts(network: Any, target: str, pattern: str, batches: list[Any], registry: Registry, as_json: bool) -> None:
    """Print the parts that a family of blocks could replace.

    Args:
        network: In eval mode.
        target: Name of a block adapter, with options behind a question mark.
        pattern: Patterns of paths, between commas.
        batches: Calibration inputs.
        registry: The plugins that the adapter comes from.
        as_json: Whether the answer is JSON.

    Raises:
        ConfigError: there are no inputs.
    """
    from paramtrans.networks.parts.fits import part_fits

    if not batches:
        raise ConfigError(["--to: takes --calibrate DATA, as parts are found by the features that pass them"])
    fits, refused = part_fits(network, target, pattern, batches, registry)
    if as_json:
        answer.tell({"target": target, "parts": [asdict(fit) for fit in fits], "refused": refused})
        return
    if fits:
        _show(fits)
    inside = "; of parts inside each other choose one" if len(fits) > 1 else ""
    click.echo(f"{counted(len(fits), 'part')} that {target} could take the place of{inside}")
    if fits:
        click.echo(
            "errors: of the start, or of a few steps from random, on other inputs (1 is as bad as a constant); more "
            "steps lower them"
        )
    if not fits:
        _tell_why(refused)


def _show(fits: list[PartFit]) -> None:
    """Parts as columns."""
    from paramtrans.networks.results.described import error_text

    columns(
        "<<>><>",
        ("part", "module", "parameters", "operations", "starts from", "error"),
        *(
            (
                fit.path,
                fit.kind,
                " → ".join(f"{number:,}" for number in fit.parameters),
                " → ".join(f"{number:,}" for number in fit.flops),
                fit.started,
                error_text(fit.error),
            )
            for fit in fits
        ),
    )


def _tell_why(refused: dict[str, str]) -> None:
    """Why no part fits: each reason, with how many modules it is that of, and the first of them."""
    paths: dict[str, list[str]] = {}
    for path, reason in refused.items():
        paths.setdefault(printable(reason).replace("\n", "; "), []).append(path)
    for reason, those in sorted(paths.items(), key=lambda pair: -len(pair[1]))[:REASONS]:
        click.echo(f"  {counted(len(those), 'module')}, such as {those[0]}: {reason}")
    click.echo("another block, or options behind its name (NAME?OPTION=VALUE), may fit")
