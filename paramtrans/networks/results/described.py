"""What is said of a translated block: its width, its parameters and its error, before and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from paramtrans.networks.files import ATTRIBUTE, Replaced
from paramtrans.networks.losses import Losses, Share
from paramtrans.networks.parts.replacing import ReplacedPart
from paramtrans.networks.units.narrowing import NarrowedGroup
from paramtrans.plugins.manager import components
from paramtrans.plugins.registry import Registry


def made_of(network: nn.Module, registry: Registry | None = None) -> list[dict[str, Any]]:
    """What is said of each block of a translated network."""
    registry = registry or components()
    return [described(block, registry) for block in getattr(network, ATTRIBUTE, ())]


def described(block: Replaced | NarrowedGroup | ReplacedPart, registry: Registry) -> dict[str, Any]:
    """What is said of a translated block; of adapters, hidden units and parameters before and after."""
    if isinstance(block, ReplacedPart):
        return {
            "path": block.path,
            "adapters": [block.kind, block.target_kind],
            "hidden": [[], []],
            "parameters": list(block.parameters),
            "start_error": block.start_error,
            "feature_error": block.feature_error,
        }
    if isinstance(block, NarrowedGroup):
        return {
            "path": block.path,
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


def changes(block: Mapping[str, Any]) -> tuple[str, str]:
    """Hidden units and parameters before and after; with the adapters where they are not the same."""
    hidden = ["×".join(map(str, sizes)) for sizes in block["hidden"]]
    if len(set(block["adapters"])) > 1:
        hidden = [f"{adapter} {size}".rstrip() for adapter, size in zip(block["adapters"], hidden, strict=True)]
    return " → ".join(hidden), " → ".join(f"{count:,}" for count in block["parameters"])


def cost_rows(losses: Losses) -> list[tuple[str, str, str, str]]:
    """Costs and measures that are known: what, before, after, and their ratio."""
    before, after = losses.before, losses.after
    rows: list[tuple[str, str, str, str]] = []
    for name in ("parameters", "bytes", "flops", "peak_bytes"):
        was, now = getattr(before, name), getattr(after, name)
        if was is not None and now is not None:
            rows.append((name.replace("_", " "), f"{was:,}", f"{now:,}", f"{now / max(1, was):.0%}"))
    if before.latency_ms is not None and after.latency_ms is not None:
        rows.append(("latency", f"{before.latency_ms:.2f} ms", f"{after.latency_ms:.2f} ms", ""))
    if losses.perplexity is not None:
        was, now = losses.perplexity
        rows.append(("perplexity", f"{was:.2f}", f"{now:.2f}", f"{now / was:.2f}×"))
    if accuracy := losses.accuracy:
        rows.append(("accuracy", _percent(accuracy.before), _percent(accuracy.after), ""))
    return rows


MEANING = {"scores": "largest of the scores", "tokens": "most likely next token"}


def sentences(losses: Losses) -> list[str]:
    """What is to be said beside these rows."""
    said = []
    if losses.accuracy is not None:
        change = losses.accuracy.change
        low, high = change.ci95
        said.append(
            f"accuracy changed by {100 * change.value:+.1f} points (95% interval {100 * low:+.1f} to "
            f"{100 * high:+.1f}), on {losses.accuracy.examples:,} labels"
        )
    if losses.agreement is not None:
        said.append(f"predictions that stay the same: {losses.agreement:.1%} ({MEANING[losses.predicts or 'scores']})")
    if losses.cosine is not None:
        said.append(f"cosine of embeddings before and after: {losses.cosine:.4f}")
    if losses.examples:
        kept, fitted = "kept aside: nothing was fitted to them", "that were fitted to: too few to keep aside"
        said.append(f"errors are those on {losses.examples:,} inputs {kept if losses.held_out else fitted}")
    return said


def error(value: float | None) -> str:
    """An error in words."""
    return "not known" if value is None else f"{value:.3f}"


def _percent(share: Share) -> str:
    low, high = share.ci95
    return f"{100 * share.value:.1f}% ({100 * low:.1f} to {100 * high:.1f})"
