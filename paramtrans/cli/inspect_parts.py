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
    """Print the parts; raises `ConfigError` where there are no inputs to see features of."""
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
