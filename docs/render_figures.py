"""Draws the figures of README and of the pages, into docs/figures/, from docs/results/ and pyproject.toml.

python docs/render_figures.py
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pairs
from architecture import packages, plugin, run, translation
from drawing import Axis, figure, line, lines, mark, path, text
from render_reproduction import kept
from summaries import Rows, interval, quality, quality_rows, real, real_rows, reproduction

from paramtrans import components

FIGURES = Path(__file__).parent / "figures"
WIDTHS = {2: "learned_each_width_2", 3: "learned_seeds", 4: "learned_each_width_4", 5: "learned_each_width_5"}
"""Hidden channels of the smaller convolutions, with the experiment that measured them; all on the same hosts."""
OTHERS = (("MLP", "square", "learned_seeds_mlp"), ("attention", "triangle", "learned_seeds_attn"))
MEAN = "translated, mean of 3 seeds"
SERIES = (
    ("trained_target", "green", "small block trained\non {images:,} labelled images"),
    ("translated", "blue", "learned translator,\none pass, no image"),
    ("prune", "orange", "pruning"),
    ("random_init", "grey", "random initialisation"),
)
"""Methods of the figure of accuracy against size."""


def parameters(target: str) -> int:
    """Parameters of a block of six channels, as results call it: `conv, 3 hidden`."""
    adapter, _, size = target.partition(", ")
    sizes = {"hidden": int(size.partition(" ")[0])} if size else {}
    module = components().create("block_adapter", adapter, channels=6, **sizes).module()
    return sum(tensor.numel() for tensor in module.parameters())


def measured(rows: Rows, experiment: str, method: str) -> dict[str, Any] | None:
    """A method's row; None where it was not measured."""
    keys = [(experiment, MEAN)] if method == "translated" else []
    keys += [(experiment, method), *([("light_conv", method)] if experiment == "learned_seeds" else [])]
    return next((rows[key] for key in keys if key in rows), None)


def accuracy_size(rows: Rows) -> str:
    """What a network keeps of its accuracy, by the size of the block and by who wrote its parameters."""
    targets = {experiment: row["target"] for (experiment, _), row in rows.items()}
    whole, sizes = parameters("basic_block"), {h: parameters(targets[name]) for h, name in WIDTHS.items()}
    others = {name: parameters(targets[experiment]) for name, _, experiment in OTHERS}
    across = Axis(min(others.values()) / 1.1, whole * 1.06, 62, 530, logarithmic=True)
    up = Axis(60, 100, 352, 36)
    parts = [text(62, 22, "accuracy, %", "small quiet")]
    for value in range(60, 101, 10):
        parts += [
            line(62, up.at(value), 530, up.at(value), "grid"),
            text(54, up.at(value) + 4, f"{value}", "end small"),
        ]
    names = {**{f"conv {hidden}": size for hidden, size in sizes.items()}, **others, "before": whole}
    for name, size in names.items():
        aside, kind = {"attention": (14, "end"), "MLP": (-12, "")}.get(name, (0, "middle"))
        parts += lines(across.at(size) + aside, 370, f"{name}\n{size}", f"{kind} small".strip())
    parts.append(text(296, 406, "the block, with its number of parameters", "middle small quiet"))
    before = up.at(rows["learned_seeds", "source"]["mean"])
    parts.append(line(62, before, across.at(whole), before, "axis", dashed=True))
    parts.append(mark("circle", across.at(whole), before, "black"))
    for method, colour, _ in SERIES:
        accuracies = {hidden: measured(rows, experiment, method) for hidden, experiment in WIDTHS.items()}
        points = [(across.at(sizes[h]), *map(up.at, interval(row))) for h, row in accuracies.items() if row is not None]
        parts.append(path([(x, y) for x, y, _, _ in points], colour))
        parts += [part for x, y, below, above in points for part in _point("circle", x, y, below, above, colour)]
        for name, shape, experiment in OTHERS:
            if (row := measured(rows, experiment, method)) is not None:
                parts += _point(shape, across.at(others[name]), *map(up.at, interval(row)), colour)
    parts += _legend(rows["learned_seeds", "trained_target"]["images"])
    said = (
        "Accuracy of small MNIST networks against the size of the block in their middle, for four ways to get the "
        "block's parameters, with 95% intervals"
    )
    return figure(768, 420, said, parts)


def _point(shape: str, x: float, y: float, low: float, high: float, colour: str) -> list[str]:
    return [line(x, low, x, high, colour), mark(shape, x, y, colour)]


def _legend(images: int) -> list[str]:
    parts, y = [line(548, 50, 566, 50, "axis", dashed=True), mark("circle", 557, 50, "black")], 50
    parts.append(text(576, 54, "the network before"))
    for _, colour, words in SERIES:
        y += 40
        parts += [line(548, y, 566, y, colour), mark("circle", 557, y, colour)]
        parts += lines(576, y + 4 - 7.5 * words.count("\n"), words.format(images=images))
    for shape, words in (("circle", "convolutions"), ("square", "MLP"), ("triangle", "attention")):
        y += 34 if shape == "circle" else 24
        parts += [mark(shape, 557, y, "black hollow"), text(576, y + 4, words)]
    return parts


FIGURES_OF: dict[str, Callable[[], str]] = {
    "accuracy_size": lambda: accuracy_size(quality_rows()),
    "quality": lambda: quality(quality_rows()).svg(label=226, wide=96),
    "real": lambda: real(real_rows()).svg(label=270, wide=210),
    "reproduction": lambda: reproduction(kept).svg(label=250, wide=150),
    "pairs": lambda: pairs.drawn(kept("pairs")),
    "packages": packages,
    "run": run,
    "translation": translation,
    "plugin": plugin,
}


def main() -> None:
    FIGURES.mkdir(exist_ok=True)
    for name, draw in FIGURES_OF.items():
        (FIGURES / f"{name}.svg").write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
