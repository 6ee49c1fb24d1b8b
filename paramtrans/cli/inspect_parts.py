"""What `paramtrans inspect --to` says: the parts that a family of blocks could take the place of."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from paramtrans.cli import answer
from paramtrans.cli.networks import columns
from paramtrans.errors import ConfigError

if TYPE_CHECKING:
    from paramtrans.plugins.registry import Registry


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
    fits = part_fits(network, target, pattern, batches, registry)
    if as_json:
        answer.tell({"target": target, "parts": [asdict(fit) for fit in fits]})
        return
    columns(
        "<<>><>",
        ("part", "module", "parameters", "operations", "starts from", "error"),
        *(
            (
                fit.path,
                fit.kind,
                " → ".join(f"{number:,}" for number in fit.parameters),
                f"{fit.flops:,}",
                fit.started,
                "" if fit.start_error is None else f"{fit.start_error:.3f}",
            )
            for fit in fits
        ),
    )
    click.echo(f"{len(fits)} parts that {target} could take the place of; of parts inside each other choose one")
