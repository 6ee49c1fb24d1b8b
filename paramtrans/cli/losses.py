"""What a translation lost, as `paramtrans translate` tells it, and labels to measure it with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from paramtrans.cli.networks import columns
from paramtrans.errors import DataError

if TYPE_CHECKING:
    from paramtrans.networks.losses import Losses, Share

EVALUATE = click.option(
    "--evaluate",
    "labelled",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Labelled inputs, for accuracy before and after: .safetensors as for --calibrate, with a tensor `labels`.",
)
PREDICTS = click.option(
    "--predicts",
    type=click.Choice(["scores", "tokens", "embedding", "values"]),
    help="What the first output is: class scores, scores of the next token, an embedding; by default what shapes say.",
)
LABELS = "labels"


def read_labelled(path: Path) -> list[tuple[Any, Any]]:
    """Inputs and labels in batches; raises `DataError` where the file is not what it should be."""
    from paramtrans.networks.calibration import read_inputs

    if path.suffix != ".safetensors":
        raise DataError(f"{path}: labelled inputs are .safetensors, with a tensor `{LABELS}` beside the inputs")
    batches: list[tuple[Any, Any]] = []
    for batch in read_inputs(path):
        if not isinstance(batch, dict) or LABELS not in batch:
            raise DataError(f"{path}: needs a tensor `{LABELS}`, the number of each example's class, beside the inputs")
        labels = batch.pop(LABELS)
        batches.append((next(iter(batch.values())) if len(batch) == 1 else batch, labels))
    return batches


MEANING = {"scores": "largest of the scores", "tokens": "most likely next token"}


def tell_losses(losses: Losses) -> None:
    """Costs and measures before and after, as columns; what errors are of."""
    before, after = losses.before, losses.after
    rows: list[tuple[str, ...]] = [("", "before", "after", "")]
    for name in ("parameters", "bytes", "flops", "peak_bytes"):
        was, now = getattr(before, name), getattr(after, name)
        if was is not None and now is not None:
            rows.append((name.replace("_", " "), f"{was:,}", f"{now:,}", f"{now / max(1, was):.0%}"))
    if before.latency_ms is not None and after.latency_ms is not None:
        rows.append(("latency", *(f"{cost.latency_ms:.2f} ms" for cost in (before, after)), ""))
    if losses.perplexity is not None:
        was, now = losses.perplexity
        rows.append(("perplexity", f"{was:.2f}", f"{now:.2f}", f"{now / was:.2f}×"))
    if accuracy := losses.accuracy:
        rows.append(("accuracy", *map(_percent, (accuracy.before, accuracy.after)), ""))
    columns("<>>>", *rows)
    if losses.accuracy is not None:
        change = losses.accuracy.change
        low, high = change.ci95
        click.echo(
            f"accuracy changed by {100 * change.value:+.1f} points (95% interval {100 * low:+.1f} to "
            f"{100 * high:+.1f}), on {losses.accuracy.examples:,} labels"
        )
    if losses.agreement is not None:
        click.echo(f"predictions that stay the same: {losses.agreement:.1%} ({MEANING[losses.predicts or 'scores']})")
    if losses.cosine is not None:
        click.echo(f"cosine of embeddings before and after: {losses.cosine:.4f}")
    if losses.examples:
        held = (
            "kept aside: nothing was fitted to them"
            if losses.held_out
            else "that were fitted to: too few to keep aside"
        )
        click.echo(f"errors are those on {losses.examples:,} inputs {held}")


def _percent(share: Share) -> str:
    low, high = share.ci95
    return f"{100 * share.value:.1f}% ({100 * low:.1f} to {100 * high:.1f})"
