"""The figure and the section on how many pairs Eq. 1 takes, from `docs/results/paper/pairs.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drawing import Axis, figure, line, lines, mark, path, text

Runs = Mapping[str, Mapping[str, Any]]
SERIES = {
    "mse": ("Eq. 1", "blue", "circle"),
    "matching": ("Eq. 1 of the best order\nof the hidden channels", "green", "square"),
    "mask": ("Eq. 1, values masked", "orange", "triangle"),
    "noise": ("Eq. 1, noise", "orange", "square"),
    "size": ("Eq. 1, a Mixer sixteen\ntimes as large", "blue", "triangle"),
    "orbit": ("Eq. 1, the source's channels\nin another order", "grey", "triangle"),
}
"""What the runs are called before the number of their pairs: in words, with a colour and a mark."""


def added(run: Mapping[str, Any]) -> tuple[float, float, float]:
    """What translation adds to a block of zeros, host by host, in points: mean, and the ends of its 95% interval."""
    less = run["methods"]["translated"]["difference"]
    return less["mean"], *less["ci95"]


def series(runs: Runs) -> dict[str, list[tuple[int, tuple[float, float, float]]]]:
    """For each kind of run, by number of pairs, what translation adds."""
    points: dict[str, list[tuple[int, tuple[float, float, float]]]] = {}
    for name, run in runs.items():
        points.setdefault(name.partition("_")[0], []).append((run["zoo"]["train"], added(run)))
    return {kind: sorted(points[kind]) for kind in SERIES if kind in points}


def drawn(runs: Runs) -> str:
    """Accuracy less the block of zeros over the number of pairs."""
    points = series(runs)
    counts = sorted({count for of_kind in points.values() for count, _ in of_kind})
    ends = [end for of_kind in points.values() for _, (_, *ends_of) in of_kind for end in ends_of]
    low, high = 5 * (int(min(ends)) // 5 - 1), 5 * (int(max(ends)) // 5 + 1)
    across = Axis(counts[0] / 1.5, counts[-1] * 1.5, 62, 500, logarithmic=True)
    up = Axis(low, high, 330, 40)
    parts = [text(62, 22, "points of accuracy, less those of a block of zeros", "small quiet")]
    for value in range(low, high + 1, 5):
        parts += [
            line(62, up.at(value), 500, up.at(value), "grid"),
            text(54, up.at(value) + 4, f"{value}".replace("-", "−"), "end small"),
        ]
    parts.append(line(62, up.at(0), 500, up.at(0), "axis", dashed=True))
    for count in counts:
        parts.append(text(across.at(count), 350, f"{count:,}", "middle small"))
    parts.append(text(281, 374, "pairs that the translator learned from", "middle small quiet"))
    y = 30
    for number, (kind, of_kind) in enumerate(points.items()):
        words, colour, shape = SERIES[kind]
        aside = 7 * (number - (len(points) - 1) / 2)  # so that intervals do not hide each other
        places = [(across.at(count) + aside, *map(up.at, values)) for count, values in of_kind]
        parts.append(path([(x, middle) for x, middle, _, _ in places], colour) if len(places) > 1 else "")
        for x, middle, bottom, top in places:
            parts += [line(x, bottom, x, top, colour), mark(shape, x, middle, colour)]
        y += 42
        parts += [mark(shape, 530, y, colour), *lines(544, y + 4 - 7.5 * words.count("\n"), words)]
    said = "Accuracy of the paper's translator less that of a block of zeros, over the number of pairs, with intervals"
    return figure(768, 390, said, filter(None, parts))


def table(runs: Runs) -> str:
    """A row for each run."""
    lines_of = ["| pairs | learned by | translated, % | less zero block | cosine | silent | loss |"]
    lines_of.append("| ---: | --- | --- | --- | ---: | ---: | ---: |")
    for kind, of_kind in series(runs).items():
        for count, (mean, low, high) in of_kind:
            run = next(run for name, run in runs.items() if name == f"{kind}_{count}")
            translated = run["methods"]["translated"]
            half = (translated["ci95"][1] - translated["ci95"][0]) / 2
            lines_of.append(
                f"| {count:,} | {SERIES[kind][0].replace(chr(10), ' ')} | {translated['mean']:.1f} ± {half:.1f} | "
                f"{mean:+.1f} ± {(high - low) / 2:.1f}".replace("-", "−")
                + f" | {run['written']['unit_cosine']:.2f} | "
                f"{run['written']['silent_units']:.0%} | {run['training']['loss']:.4f} |"
            )
    return "\n".join(lines_of)
