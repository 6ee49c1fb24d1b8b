"""What is said of a translated block: its width, its parameters and its error, before and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from paramtrans.networks.depth.left_out import LeftOut
from paramtrans.networks.files import ATTRIBUTE, MODULES, Replaced
from paramtrans.networks.losses import Losses, Share
from paramtrans.networks.parts.replacing import ReplacedPart
from paramtrans.networks.units.narrowed import QUERY_KEY, NarrowedGroup
from paramtrans.plugins.manager import components
from paramtrans.plugins.registry import Registry
from paramtrans.utils.counts import counted


def describe_blocks(network: nn.Module, registry: Registry | None = None) -> list[dict[str, Any]]:
    """The record of each block that was translated in a network, as `describe_block` gives it."""
    registry = registry or components()
    return [describe_block(block, registry) for block in getattr(network, ATTRIBUTE, ())]


def describe_block(block: Replaced | NarrowedGroup | ReplacedPart | LeftOut, registry: Registry) -> dict[str, Any]:
    """The record of a translated block: path, adapters, hidden units and parameters before and after, and errors."""
    if isinstance(block, ReplacedPart):
        return {
            "path": block.path,
            "adapters": [block.kind, block.target_kind],
            "hidden": [[], []],
            "parameters": list(block.parameters),
            "start_error": block.start_error,
            "feature_error": block.feature_error,
        }
    if isinstance(block, LeftOut):
        return {
            "path": block.path,
            "adapters": [block.kind, "left out"],
            "hidden": [[], []],
            "parameters": list(block.parameters),
            "feature_error": block.feature_error,
        }
    if isinstance(block, NarrowedGroup):
        return {
            "path": block.path,
            "title": block.title,
            "adapters": [block.kind, block.kind],
            "hidden": [[count] for count in block.units],
            "parameters": list(block.parameters),
            "feature_error": block.feature_error,
        }
    sides = ((block.kind, block.source), (block.target_kind, block.target))
    specs = [registry.create("block_adapter", kind, **options).spec for kind, options in sides]
    return {
        "path": block.path,
        "adapters": [kind for kind, _ in sides],
        "hidden": [[group.size for group in spec.symmetries] for spec in specs],
        "parameters": [spec.parameters for spec in specs],
        "feature_error": block.feature_error,
    }


STEPS = {
    "left out": "whole blocks were left out",
    "replaced": "parts became blocks of another architecture, fitted to what the parts compute",
    "rotated": "residual streams were rotated into their principal axes",
    "stream": "units of residual streams were left out, and what reads them was made up for",
    QUERY_KEY: "dimensions of queries and keys were left out",
    "units": "hidden units were left out, and what reads them was made up for",
    "translated": "blocks were translated into smaller ones",
}
"""What may have been done to a network, in the order in which it is done."""


def steps_of(network: nn.Module) -> list[str]:
    """What was done to a translated network, as clauses of a sentence."""
    kinds = {_step(block) for block in getattr(network, ATTRIBUTE, ())}
    kinds |= {"rotated"} if getattr(network, MODULES, ()) else set()
    return [clause for step, clause in STEPS.items() if step in kinds]


def takes_translator(network: nn.Module) -> bool:
    """Whether a translated network has blocks that a translator wrote: not those left out or replaced alone."""
    return any(not isinstance(block, LeftOut | ReplacedPart) for block in getattr(network, ATTRIBUTE, ()))


def _step(block: Replaced | NarrowedGroup | ReplacedPart | LeftOut) -> str:
    if isinstance(block, NarrowedGroup):
        return block.kind if block.kind in STEPS else "units"
    return {LeftOut: "left out", ReplacedPart: "replaced", Replaced: "translated"}[type(block)]


def called(block: Mapping[str, Any]) -> str:
    """What the block of a record is called in tables."""
    return str(block.get("title") or block["path"] or ".")


def size_changes(block: Mapping[str, Any]) -> tuple[str, str]:
    """Hidden units and parameters of a block's record, before and after; with the adapters where these differ."""
    hidden = ["×".join(map(str, sizes)) for sizes in block["hidden"]]
    if len(set(block["adapters"])) > 1:
        hidden = [f"{adapter} {size}".rstrip() for adapter, size in zip(block["adapters"], hidden, strict=True)]
    return " → ".join(hidden), " → ".join(f"{count:,}" for count in block["parameters"])


def cost_rows(losses: Losses) -> list[tuple[str, str, str, str]]:
    """Rows of a table of costs and measures, as far as they are known: name, before, after, and their ratio."""
    before, after = losses.before, losses.after
    rows: list[tuple[str, str, str, str]] = []
    for name in ("parameters", "bytes", "flops", "peak_bytes"):
        old, new = getattr(before, name), getattr(after, name)
        if old is not None and new is not None:
            rows.append((name.replace("_", " "), f"{old:,}", f"{new:,}", f"{new / max(1, old):.0%}"))
    if before.latency_ms is not None and after.latency_ms is not None:
        rows.append(("latency", f"{before.latency_ms:.2f} ms", f"{after.latency_ms:.2f} ms", ""))
    if losses.perplexity is not None:
        old, new = losses.perplexity
        rows.append(("perplexity", f"{old:.2f}", f"{new:.2f}", f"{new / old:.2f}×"))
    if accuracy := losses.accuracy:
        rows.append(("accuracy", _percent(accuracy.before), _percent(accuracy.after), ""))
    return rows


MEANING = {"scores": "largest of the scores", "tokens": "most likely next token"}


def sentences(losses: Losses) -> list[str]:
    """Sentences on what was lost, to stand beside the rows of `cost_rows`."""
    lines = []
    if losses.accuracy is not None:
        change = _points(losses.accuracy.change)
        lines.append(f"accuracy changed by {change}, on {counted(losses.accuracy.examples, 'label')}")
    if losses.agreement is not None:
        of = f"of {counted(losses.examples, 'input')}, {MEANING[losses.predicts or 'scores']}"
        lines.append(f"predictions that stay the same: {losses.agreement:.1%} ({of})")
    if losses.expected_change is not None and losses.accuracy is None:
        lines.append(
            f"accuracy is expected to change by {_points(losses.expected_change)}: no labels, but the probabilities "
            "that the untouched network gives"
        )
    if losses.cosine is not None:
        lines.append(f"cosine of embeddings before and after: {losses.cosine:.4f}")
    if losses.examples:
        kept_aside, fitted = "kept aside: nothing was fitted to them", "that were fitted to: too few to keep aside"
        lines.append(
            f"errors are those on {counted(losses.examples, 'input')} {kept_aside if losses.held_out else fitted}"
        )
    return lines


def error_text(value: float | None) -> str:
    """A relative error as it is shown."""
    return "not known" if value is None else f"{value:.3f}"


def _points(change: Share) -> str:
    """A change of accuracy; zero is +0.0."""
    value, low, high = (f"{100 * number:+z.1f}" for number in (change.value, *change.ci95))
    return f"{value} points (95% interval {low} to {high})"


def _percent(share: Share) -> str:
    low, high = share.ci95
    return f"{100 * share.value:.1f}% ({100 * low:.1f} to {100 * high:.1f})"
