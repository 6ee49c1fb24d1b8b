"""Renders `docs/real.md` from `docs/results/real.json`, which the programs of `examples/real` filled."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent

INTRODUCTION = """# Real networks

Written by `python docs/render_real.py`, not by hand, from `docs/results/real.json`, which the programs of
`examples/real` filled. Hidden units inside blocks are halved; no label is looked at and nothing is trained again,
by no method. *Inputs* are the unlabelled images or sentences that a method looks at. *FLOPs* are for one input, a
multiply-add being two. *Seconds* are for translating one network, on one core of a busy server with 2 cores and no
GPU: compare them roughly. *MiB* is the largest memory of the whole process so far, its data included. Intervals are
95% t-intervals.

The methods: *refit* keeps the units that are missed most and solves what reads them by least squares; *least
squares on the strongest units* solves the same but keeps the units of largest norm; *activation-weighted pruning,
means corrected* keeps those of largest activation and only moves biases; *magnitude pruning* keeps the strongest
and changes nothing else.
"""
NOTES = {
    "ResNet-8 on FashionMNIST": """Three networks of 16, 32 and 64 channels, trained for three epochs from different
seeds on 55,000 images; the unlabelled images are drawn from the 5,000 others. Intervals are over the three
networks, and therefore wide. All of the blocks' hidden channels are halved, those of the residual stream kept, also
by torch-pruning, which ranks channels by the norm of all layers they are coupled to. No option was changed after
numbers were seen, and nothing was fine-tuned afterwards: what fine-tuning would give back to pruning was not
measured.
""",
    "all-MiniLM-L6-v2": """Six feed-forward blocks, 1536 to 768 hidden units; attention is as it was. Tested
on 500 sentences of docstrings of modules that give no sentence to calibration. Intervals are over sentences, of the
one network there is; embeddings are the mean over tokens. The aim was a cosine of 0.96 to the original's
embeddings: refit's {cosine:.3f} **misses it**.
""",
}
LEFT_OUT = """## Not measured

ResNet-50 on ImageNet: no weights and no images were at hand. Other widths than half, other rivals than magnitude,
fine-tuning after pruning, downstream tasks of MiniLM, and anything on a GPU.
"""
HEAD = """| method | inputs | width | value | 95% interval | parameters | MFLOPs | seconds | MiB |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


def main() -> None:
    rows = json.loads((DOCS / "results" / "real.json").read_text())
    models = [section(model, list(own)) for model, own in groupby(rows, key=lambda row: row["model"])]
    (DOCS / "real.md").write_text("\n".join([INTRODUCTION, *models, LEFT_OUT]))


def section(model: str, rows: list[dict[str, Any]]) -> str:
    """One model: what was done, and a table for each metric."""
    cosine = next((row["value"] for row in rows if (row["method"], row["metric"]) == ("refit", "cosine")), None)
    parts = [f"## {model}\n", NOTES[model].format(cosine=cosine)]
    for metric in dict.fromkeys(row["metric"] for row in rows):
        lines = [line(row) for row in rows if row["metric"] == metric]
        parts.append("\n".join([f"### {metric[0].upper()}{metric[1:]}\n", HEAD, *lines]) + "\n")
    return "\n".join(parts)


def line(row: dict[str, Any]) -> str:
    """One row, as Markdown."""
    digits = 1 if "%" in row["metric"] else 3
    low, high = row["ci95"]
    cells = [
        row["method"],
        f"{row['images_or_sentences']:,}",
        f"{row['width']:g}",
        f"{row['value']:.{digits}f}",
        f"{low:.{digits}f} to {high:.{digits}f}",
        f"{row['parameters']:,}",
        f"{row['flops'] / 1e6:,.1f}",
        "" if row["seconds"] is None else f"{row['seconds']:.1f}" if row["seconds"] >= 0.1 else f"{row['seconds']:.2f}",
        f"{row['peak_mib']:,.0f}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
