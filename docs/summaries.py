"""The table that each page of results begins with, and the figure above it, from the numbers in docs/results/."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drawing import Column, Interval, dot_plot
from papers_numbers import BEST, PAPER

RESULTS = Path(__file__).parent / "results"
REFERENCE = re.compile(r"\{(\w+)\|([^|{}]+)\|(\w+)\}")
"""In a text about quality: an experiment, a method, and what is told of it."""


@dataclass(frozen=True)
class Summary:
    """A row a method, a column a setting: one value with its interval in each cell."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[tuple[str, str, Sequence[Interval | None]]]
    """Method, colour, cells."""
    digits: Sequence[int]
    """Decimals of each column."""
    said: Sequence[tuple[str, Sequence[str]]] = ()
    """Further columns of the table, which are not drawn: heading and cells."""

    def markdown(self) -> str:
        """The table."""
        names = [column.heading.replace("\n", ", ") for column in self.columns]
        heads = ["method", *(name for name, _ in self.said), *names]
        lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
        for number, (method, _, cells) in enumerate(self.rows):
            values = [cell(value, digits) for value, digits in zip(cells, self.digits, strict=True)]
            lines.append(f"| {' | '.join([method, *(numbers[number] for _, numbers in self.said), *values])} |")
        return "\n".join(lines)

    def svg(self, label: int = 250, wide: int = 150) -> str:
        """The figure."""
        return dot_plot(self.title, self.columns, self.rows, label, wide)


def cell(value: Interval | None, digits: int) -> str:
    """A value with half of its interval; one more decimal where that would be told as nothing."""
    if value is None:
        return "–"
    mean, low, high = value
    half = (high - low) / 2
    more = digits + (0 < half < 0.5 / 10**digits)
    return f"{round(mean, digits) + 0:.{digits}f}\u00a0±\u00a0{half:.{more}f}".replace("-", "−")  # on one line


def interval(summary: Mapping[str, Any], value: str = "mean") -> Interval:
    low, high = summary["ci95"]
    return summary[value], low, high


# How blocks are written without training them, docs/quality.md.

Rows = dict[tuple[str, str], dict[str, Any]]
SETTINGS = (
    Column("half the channels\nlight hosts", 60, 100, (60, 80, 100)),
    Column("half the channels\npaper hosts", 20, 100, (20, 60, 100)),
    Column("MLP\nlight hosts", 60, 100, (60, 80, 100)),
    Column("MLP\npaper hosts", 20, 100, (20, 60, 100)),
    Column("attention\nlight hosts", 60, 100, (60, 80, 100)),
    Column("attention\npaper hosts", 20, 100, (20, 60, 100)),
)
CONV, MLP, ATTENTION = "learned_seeds", "learned_seeds_mlp", "learned_seeds_attn"
EVERYWHERE = (CONV, "paper_conv", MLP, "paper_mlp", ATTENTION, "paper_attention")
SEEDS, LEARNED = "translated, mean of 3 seeds", "learned on light hosts"
QUALITY: tuple[tuple[str, str, tuple[tuple[str, str] | None, ...]], ...] = (
    ("the network itself", "black", tuple((name, "source") for name in EVERYWHERE)),
    ("small block trained on labels", "grey", tuple((name, "trained_target") for name in EVERYWHERE)),
    (
        "learned translator, no image",
        "blue",
        (
            (CONV, SEEDS),
            ("learned_on_paper", LEARNED),
            (MLP, SEEDS),
            ("paper_mlp", LEARNED),
            (ATTENTION, SEEDS),
            ("paper_attention", LEARNED),
        ),
    ),
    (
        "the same, then 64 images",
        "blue",
        (
            None,
            None,
            ("learned_mlp", "translated, then 64 images, both"),
            None,
            ("learned_attn", "translated, then 64 images, both"),
            None,
        ),
    ),
    (
        "least squares, 64 images",
        "orange",
        (("light_conv", "refit, 64 images"), ("paper_conv", "refit, 64 images"), None, None, None, None),
    ),
    (
        "feature matching, 64 images",
        "orange",
        (None, ("paper_conv", "matching, 64 images"), None, ("paper_mlp", "matching, 64 images"), None, None),
    ),
    (
        "distillation, 1,024 images",
        "orange",
        (
            None,
            ("paper_conv", "distillation, 1,024 images"),
            None,
            ("paper_mlp", "distillation, 1,024 images"),
            None,
            None,
        ),
    ),
    (
        "feature matching, pen strokes",
        "orange",
        (None, ("paper_conv", "matching, 256 strokes"), None, None, None, None),
    ),
    ("pruning", "orange", (("light_conv", "prune"), ("paper_conv", "prune"), None, None, None, None)),
    ("random initialisation", "grey", tuple((name, "random_init") for name in EVERYWHERE)),
)
"""Method, colour, and for each setting the experiment and the method in quality.json."""


def quality_rows() -> Rows:
    return {(row["experiment"], row["method"]): row for row in json.loads((RESULTS / "quality.json").read_text())}


def quality(rows: Rows) -> Summary:
    return Summary(
        "Accuracy of small networks for MNIST whose middle block was replaced, by method, with 95% intervals",
        SETTINGS,
        [
            (label, colour, [None if key is None else interval(rows[key]) for key in keys])
            for label, colour, keys in QUALITY
        ],
        [1] * len(SETTINGS),
    )


TOLD: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "mean": lambda row: f"{row['mean']:.1f}%",
    "all": lambda row: f"{cell(interval(row), 1)}%",
    "share": lambda row: f"{100 * row['gap_closed']:.0f}%",
    "lost": lambda row: f"{-row['difference']['mean']:.1f}",
    "hosts": lambda row: f"{row['report_hosts']:,}",
    "zoo": lambda row: f"{row['zoo_hosts']:,}",
    "ms": lambda row: f"{1000 * row['seconds_per_host']:.0f} ms",
    "seconds": lambda row: f"{row['seconds_per_host']:.2g} s",
}
"""What a text may tell of a row."""


def filled(text: str, rows: Rows) -> str:
    """A text whose references `{experiment|method|what}` are the numbers that they stand for."""
    return REFERENCE.sub(lambda match: TOLD[match[3]](rows[match[1], match[2]]), text)


# Networks that were not made for this, docs/real.md.

RESNET, MINILM = "ResNet-8 on FashionMNIST", "all-MiniLM-L6-v2"
ACCURACY, COSINE = "accuracy on 10,000 test images, %, mean of 3 networks", "cosine"
REAL: tuple[tuple[str, str, str, int | None, int | None], ...] = (
    ("the network itself", "black", "the network itself", 0, None),
    ("least squares, fine-tuned on all labels", "grey", "refit, then fine-tuned on labels", 55_000, None),
    ("least squares, then feature matching", "blue", "refit, then feature matching", 64, 1500),
    ("least squares", "blue", "refit", 64, 1500),
    ("least squares, units by their norm", "blue", "least squares on the strongest units", 64, 1500),
    ("least squares, synthetic inputs", "blue", "refit on inputs made for the BatchNorms", 0, None),
    ("activation-weighted pruning", "orange", "activation-weighted pruning, means corrected", None, 1500),
    ("folding", "orange", "folding", 0, 0),
    ("magnitude pruning", "orange", "magnitude pruning", 0, 0),
    ("magnitude pruning, torch-pruning", "orange", "torch-pruning, magnitude", 0, None),
)
"""Label, colour, method in real.json, and the number of inputs it looks at with each of the two networks."""


def real_rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((RESULTS / "real.json").read_text())
    return rows


def real(rows: Sequence[Mapping[str, Any]]) -> Summary:
    compared = [row for row in rows if row["ci95"]]
    columns = {(row["model"], row["metric"], row["method"], row["inputs"]): interval(row, "value") for row in compared}

    def value(model: str, metric: str, method: str, inputs: int | None) -> Interval | None:
        return None if inputs is None else columns[model, metric, method, inputs]

    return Summary(
        "Quality of a ResNet and of a sentence encoder of half the hidden width, by method, with 95% intervals",
        (
            Column("ResNet-8 on FashionMNIST\naccuracy, %", 0, 100, (0, 25, 50, 75, 100)),
            Column("MiniLM\ncosine to its embeddings", 0.5, 1, (0.5, 0.75, 1)),
        ),
        [
            (label, colour, [value(RESNET, ACCURACY, method, images), value(MINILM, COSINE, method, sentences)])
            for label, colour, method, images, sentences in REAL
        ],
        (1, 3),
        [
            ("images", ["–" if images is None else f"{images:,}" for *_, images, _ in REAL]),
            ("sentences", ["–" if sentences is None else f"{sentences:,}" for *_, sentences in REAL]),
        ],
    )


# The paper's own way, docs/reproduction.md.


def reproduction(runs_of: Callable[[str], Mapping[str, Mapping[str, Any]]]) -> Summary:
    """Of each table and figure that tells accuracies, the line that is best in the paper."""
    rows, papers = [], []
    for label, name, run in BEST:
        methods = runs_of(name)[run]["methods"]
        lost, (low, high) = methods["zero_block"]["difference"]["mean"], methods["zero_block"]["difference"]["ci95"]
        cells = [interval(methods["translated"]), interval(methods["zero_block"]), (-lost, -high, -low)]
        rows.append((label, "blue", cells))
        papers.append(next(number for _, number, *where in PAPER[name][1] if where == [run, "translated"]))
    return Summary(
        "Accuracy that the paper's translator reaches, and what it adds to a block of zeros, with 95% intervals",
        (
            Column("translated, %", 40, 80, (40, 60, 80)),
            Column("block of zeros, %", 40, 80, (40, 60, 80), colour="grey"),
            Column("difference, points", -20, 10, (-20, -10, 0, 10), 0),
        ),
        rows,
        (1, 1, 1),
        [("paper, %", papers)],
    )
