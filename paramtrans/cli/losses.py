"""What a translation lost, as `paramtrans translate` prints it, and labels to measure it with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from paramtrans.cli.flags import FilePath
from paramtrans.cli.networks import columns
from paramtrans.errors import DataError

if TYPE_CHECKING:
    from paramtrans.networks.losses import Losses

EVALUATE = click.option(
    "--evaluate",
    "labelled",
    metavar="FILE",
    type=FilePath(),
    help="Labelled inputs, for accuracy before and after: .safetensors as for --calibrate, with a tensor `labels`.",
)
PREDICTS = click.option(
    "--predicts",
    type=click.Choice(["scores", "tokens", "embedding", "values"]),
    help="What the first output is: class scores, scores of the next token, an embedding; by default what shapes say.",
)
LABELS = "labels"


def read_labelled(path: Path, network: Any) -> list[tuple[Any, Any]]:
    """Inputs and labels in batches.

    Args:
        path: `.safetensors` with a tensor of labels.
        network: What takes the inputs.

    Raises:
        DataError: the file is not what it should be.
    """
    from paramtrans.networks.loading.calibration import read_inputs

    if path.suffix != ".safetensors":
        raise DataError(f"{path}: labelled inputs are .safetensors, with a tensor `{LABELS}` beside the inputs")
    batches: list[tuple[Any, Any]] = []
    for batch in read_inputs(path, network):
        if not isinstance(batch, dict) or LABELS not in batch:
            raise DataError(f"{path}: needs a tensor `{LABELS}`, the number of each example's class, beside the inputs")
        labels = batch.pop(LABELS)
        batches.append((next(iter(batch.values())) if len(batch) == 1 else batch, labels))
    _check(path, network, batches)
    return batches


def _check(path: Path, network: Any, batches: list[tuple[Any, Any]]) -> None:
    """Raise `DataError` for what the network does not take, before a translation and not behind it."""
    from paramtrans.networks.results.measuring import check_labels

    try:
        check_labels(network, batches)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def tell_losses(losses: Losses) -> None:
    """Print costs and measures before and after, as columns, and sentences on them."""
    from paramtrans.networks.results.described import cost_rows, sentences

    columns("<>>>", ("", "before", "after", ""), *cost_rows(losses))
    for sentence in sentences(losses):
        click.echo(sentence)
