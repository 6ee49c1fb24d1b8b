"""The card of a translated network: what it came from, how it was made, and what it lost, for a hub and its readers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from paramtrans._version import __version__
from paramtrans.api.architecture import Origin
from paramtrans.networks.losses import Losses
from paramtrans.networks.results.described import called, cost_rows, error_text, sentences, size_changes
from paramtrans.translators.card import text
from paramtrans.utils.templates import environment

PAGE = "README.md"
PLAIN = re.compile(r"[A-Za-z0-9][\w.+-]{0,59}(/[A-Za-z0-9][\w.+-]{0,95})?")
"""What may stand in the header of a card unquoted: names of licences, and of models on a hub."""


def page(
    origin: Origin,
    blocks: Sequence[Mapping[str, Any]],
    losses: Losses | None,
    steps: Sequence[str],
    translators: Sequence[str] = (),
) -> str:
    """The card in Markdown, with the header that hubs read.

    Args:
        origin: What the network was before.
        blocks: What is said of each block, as `described.describe_blocks` says it.
        losses: What it lost, if that was measured.
        steps: What was done to it, as `described.steps_of` says it.
        translators: By which it was translated, one after the other.
    """
    cells = [(called(block), *size_changes(block), error_text(block["feature_error"])) for block in blocks]
    output_errors = losses.outputs.items() if losses else ()
    return (
        environment()
        .get_template("model_card.md.jinja")
        .render(
            origin=origin,
            licence=_plain(origin.licence),
            model=_plain(origin.hub),
            steps=text("; ".join(steps)),
            translators=", ".join(map(text, translators)),
            blocks=[tuple(map(text, row)) for row in cells],
            outputs=[(text(name or "the only one"), error_text(value)) for name, value in output_errors],
            rows=[tuple(map(text, row)) for row in cost_rows(losses)] if losses else [],
            sentences=[*map(text, sentences(losses))] if losses else [],
            version=__version__,
            text=text,
        )
    )


def _plain(name: str | None) -> str | None:
    return name if name and PLAIN.fullmatch(name) else None
