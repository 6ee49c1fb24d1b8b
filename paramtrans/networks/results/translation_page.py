"""The page of a translated network, complete in itself: its blocks, what it lost, examples, and the record."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from paramtrans._version import __version__
from paramtrans.networks.losses import Losses
from paramtrans.networks.results.described import called, cost_rows, error_text, sentences, size_changes
from paramtrans.networks.results.samples import Sample
from paramtrans.report import figures, translation_figures
from paramtrans.utils.templates import environment

PAGE = "translation.html.jinja"


def page(
    name: str, blocks: Sequence[Mapping[str, Any]], losses: Losses, samples: Sequence[Sample], facts: Mapping[str, str]
) -> str:
    """The page of one translation.

    Args:
        name: Of the network, for the title.
        blocks: What is said of each block, in order, as `described.describe_blocks` says it.
        losses: What was lost.
        samples: Examples before and after.
        facts: How it was made: what, and what of it.
    """
    rows = [(called(block), *size_changes(block), error_text(block["feature_error"])) for block in blocks]
    shares = [block["parameters"][1] / max(1, block["parameters"][0]) for block in blocks]
    figure = None
    if blocks:
        drawing = translation_figures.blocks(
            [row[0] for row in rows], shares, [block["feature_error"] for block in blocks]
        )
        description = "; ".join(
            f"{row[0]}: {share:.0%} kept, error {row[3]}" for row, share in zip(rows, shares, strict=True)
        )
        figure = Markup(figures.svg(drawing, "blocks", f"Blocks in order. {description}."))
    record = {"facts": dict(facts), "blocks": list(blocks), "losses": losses.model_dump(mode="json")}
    return rendered(
        name,
        eyebrow="paramtrans translate",
        headline=_headline(losses),
        tiles=_tiles(losses),
        blocks=rows,
        blocks_figure=figure,
        outputs=[(path or "the only one", error_text(value)) for path, value in losses.outputs.items()],
        costs=cost_rows(losses),
        sentences=sentences(losses),
        samples=samples,
        facts={**facts, "paramtrans": __version__},
        record=json.dumps(record, indent=2, ensure_ascii=False),
    )


def rendered(name: str, **parts: Any) -> str:
    """The page's template, filled.

    Args:
        name: Of the network, for the title.
        **parts: What the template shows; parts that are left out are not shown.
    """
    empty: dict[str, Any] = dict.fromkeys(
        (
            "tiles",
            "blocks",
            "blocks_figure",
            "outputs",
            "costs",
            "sentences",
            "samples",
            "facts",
            "record",
            "points",
            "curve",
            "note",
        ),
        (),
    )
    return environment().get_template(PAGE).render(name=name, **{**empty, **parts})


def _headline(losses: Losses) -> str:
    before, after = losses.before.parameters, losses.after.parameters
    headline = f"{after:,} of {before:,} parameters stay ({after / max(1, before):.0%})"
    if losses.before.latency_ms and losses.after.latency_ms:
        headline += f", and one example takes {losses.after.latency_ms / losses.before.latency_ms:.0%} of the time"
    return headline + "."


def _tiles(losses: Losses) -> list[tuple[str, str]]:
    """The few numbers that stand large at the top: what it is, and the number."""
    tiles = [("parameters kept", f"{losses.after.parameters / max(1, losses.before.parameters):.0%}")]
    if losses.before.flops and losses.after.flops is not None:
        tiles.append(("operations kept", f"{losses.after.flops / losses.before.flops:.0%}"))
    if losses.perplexity is not None:
        tiles.append(("perplexity, after ÷ before", f"{losses.perplexity[1] / losses.perplexity[0]:.2f}×"))
    elif losses.agreement is not None:
        tiles.append(("predictions that stay the same", f"{losses.agreement:.1%}"))
    if losses.cosine is not None:
        tiles.append(("cosine of embeddings", f"{losses.cosine:.4f}"))
    if losses.outputs:
        tiles.append(("relative error of the output", error_text(next(iter(losses.outputs.values())))))
    return tiles
