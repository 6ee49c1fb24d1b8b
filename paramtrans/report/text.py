"""What a page tells someone who has never heard of all this: what was done, and what each method is."""

from __future__ import annotations

from collections.abc import Iterable

from paramtrans.api.records import Evaluation, RunRecord
from paramtrans.report.figures import label, ordered

MEANINGS = {
    "source": "each network as it was trained, with its source block.",
    "trained_target": "a target block trained in the same place, all around it frozen: what training would give.",
    "translated": "what the translator wrote.",
    "zero_block": "a target block of zeros: the network without what the block computes.",
    "random_init": "an untrained target block.",
    "random_replacement": "the trained target block of another network, drawn at random.",
    "greedy_replacement": "the trained target block of the network whose source block is nearest.",
}


def about(run: RunRecord, result: Evaluation) -> str:
    """What was done, in words for anyone."""
    names = {part: run.config[part]["name"] for part in ("task", "source", "target")}
    source, target = result.blocks.source.parameters, result.blocks.target.parameters
    written = "The methods below write the small block’s parameters."
    if result.translator is not None:
        written = "A translator wrote the small block’s parameters from the large one’s; nothing was trained again."
    return (
        f"In networks trained on “{names['task']}”, one block was replaced by a smaller one: the source block "
        f"({names['source']}, {source:,} parameters) by a target block ({names['target']}, {target:,} parameters). "
        f"{written} "
        "All methods were compared on the same networks, the report hosts, and no translator has seen those before."
    )


def meanings(methods: Iterable[str]) -> list[tuple[str, str]]:
    """Each of some methods with what it is, as far as that is known here."""
    return [(label(name), MEANINGS[name]) for name in ordered(methods) if name in MEANINGS]
