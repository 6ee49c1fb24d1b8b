"""What `translate` says of a translated network when it is done."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from paramtrans.cli.losses import tell_losses
from paramtrans.cli.networks import columns
from paramtrans.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from paramtrans.networks.losses import Losses


def print_blocks(records: list[dict[str, Any]], losses: Losses) -> None:
    """What became of each block, and what the network lost."""
    from paramtrans.networks.results.described import called, error_text, size_changes

    columns(
        "<<<>",
        ("block", "hidden units", "parameters", "feature error"),
        *((called(block), *size_changes(block), error_text(block["feature_error"])) for block in records),
        ("output of the network", "", "", error_text(output_error(losses))),
    )
    tell_losses(losses)


def refused(small: nn.Module) -> dict[str, str]:
    """Groups of units that stayed as they were though they were asked for, with the reason of each."""
    from paramtrans.networks.files import REFUSED

    return dict(getattr(small, REFUSED, {}))


def tell_refused(small: nn.Module, quiet: bool) -> None:
    """Say which groups stayed as they were, and why, where that was not said already, as a warning."""
    from paramtrans.networks.graph.proof import advice

    reasons = refused(small) if quiet else {}
    for title, reason in reasons.items():
        click.echo(f"{title} stays as it is: {reason}")
    if hint := advice(small, reasons.values()):
        click.echo(hint)


def staying(network: nn.Module, small: nn.Module) -> str:
    """How much of a network is as it was."""
    from paramtrans.networks.finishing import changed_parameters

    changed = sum(parameter.numel() for parameter in changed_parameters(network, small))
    stays = sum(parameter.numel() for parameter in small.parameters()) - changed
    share = stays / max(1, sum(parameter.numel() for parameter in network.parameters()))
    return f"{share:.0%} of the parameters stay as they were; paramtrans inspect says which, and why"


def output_error(losses: Losses) -> float | None:
    """Relative error of the network's first output."""
    return next(iter(losses.outputs.values()), None)


def rebuilt_by(architecture: str) -> str:
    """How the network that was written is had again."""
    from paramtrans.plugins.manager import plugins

    files = ", ".join(Path(file).name for file in plugins().files)
    return _rebuilt_by(architecture) + (f", and registry= of plugins with {files}" if files else "")


def _rebuilt_by(architecture: str) -> str:
    from paramtrans.networks.loading.architectures import factory_file, installed
    from paramtrans.plugins.manager import components

    if factory_file(architecture):
        return f"rebuild it by paramtrans.load_translated, given the untranslated network of {architecture}"
    source, name, arguments = installed(architecture, components())
    try:
        source.check_recorded(name, arguments)
    except ConfigError:
        return f'rebuild it by paramtrans.load_translated, given network="{architecture}"'
    return "rebuild it by paramtrans.load_translated"
