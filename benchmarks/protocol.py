"""What pairs of the paper's protocol cost at the rates that were measured."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.turns import Row

IMAGES = 60_000 * 10
"""In a step of the zoo: ten epochs."""


def write(rows: list[Row], path: Path) -> None:
    """One table, as `docs/render_benchmarks.py` shows it."""
    rates = {row.name: row for row in rows}
    step1, step2 = rates["zoo step 1"].ours, rates["zoo step 2"].ours
    seconds = IMAGES / step1 + IMAGES / step2
    peak = rates["zoo step 1, arithmetic"]
    text = (
        f"Ten epochs of 60,000 images for the host, ten for its target, at the rates of the table above "
        f"({step1 / 1e6:.2f} and {step2 / 1e6:.2f} million model-images a second on one {peak.device}); reckoned from "
        "turns of a few seconds, not run at that length. Written by `python -m benchmarks`."
    )
    table = [
        {"": "seconds a pair", "one device": f"{seconds:.3f}"},
        {"": "pairs an hour", "one device": f"{3600 / seconds:,.0f}"},
        {"": "300,000 pairs", "one device": f"{300_000 * seconds / 3600:,.1f} hours"},
        {"": "step 1, share of the measured fp32 matrix product", "one device": f"{100 * peak.ratio:.1f}%"},
    ]
    document = {"title": "Pairs of the paper's protocol on a GPU", "text": text, "rows": table}
    path.write_text(json.dumps(document, indent=1) + "\n")
