"""Renders `docs/architectures.md` from the results of `examples/real/architectures.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
HEAD = """# Other architectures, measured

Written by `python docs/render_architectures.py`, not by hand; `examples/real/architectures.py` measures it. Blocks of
networks that were trained for their own sake are given to [another architecture](other-architectures.md), from
unlabelled inputs alone. *Start* is the closed form of a target, or random where it has none. *Random* is the same
network with the new blocks as PyTorch initialises them. *Way* is the part of the way from random to the original, or to
the target's architecture trained on all labels where that was done. *Error* is the mean relative reconstruction error
of the blocks behind feature matching, on inputs that nothing was fitted to; *size* the parameters of the new blocks as
a share of those before; *latency* the time of the whole network on one thread, as a share of before, beside other
work, so that rows of one target differ. Intervals are 95% t-intervals over networks.
"""
NOT_MEASURED = """## What was missed, and what is not in the tables

The rows of bottlenecks are of before they had a closed form: they began at random, and lost more than the five points
that were aimed at; more steps helped. The targets were not trained on labels as an upper mark, and no rival stands
beside them. MiniLM and SmolLM2 are not measured yet: `python architectures.py minilm` and `smollm2` do it.
"""
COLUMNS = "| target | inputs | fitted by | {metric} | interval | way | error | size | operations | latency | seconds |"
SIDES = "| --- | ---: | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |"


def page(rows: list[dict[str, Any]]) -> str:
    """A table for each network."""
    parts = [HEAD]
    for model, metric in dict.fromkeys((row["model"], row["metric"]) for row in rows):
        measured = [row for row in rows if (row["model"], row["metric"]) == (model, metric)]
        parts.append(
            f"## {model}: {measured[0]['from']}\n\n{_marks(measured)}\n\n{COLUMNS.format(metric=metric)}\n{SIDES}"
        )
        parts[-1] += "".join(f"\n{_line(row)}" for row in measured) + "\n"
    return "\n".join([*parts, NOT_MEASURED])


def _marks(rows: list[dict[str, Any]]) -> str:
    """What stands at both ends."""
    first = rows[0]
    models = f", mean of {first['models']} networks" if first["models"] > 1 else ""
    marks = [f"The original has {_number(first['original'])}{models}."]
    for target in dict.fromkeys(row["to"] for row in rows):
        row = next(row for row in rows if row["to"] == target)
        trained = "" if row["trained"] is None else f", trained {_number(row['trained'])}"
        marks.append(f"`{target}` at random {_number(row['random'])}{trained}.")
    return " ".join(marks)


def _line(row: dict[str, Any]) -> str:
    best = row["original"] if row["trained"] is None else row["trained"]
    way = (row["value"] - row["random"]) / (best - row["random"])
    low, high = row["ci95"] or (None, None)
    cells = [
        row["to"],
        row["inputs"],
        row["stage"],
        _number(row["value"]),
        "" if low is None else f"{_number(low)} to {_number(high)}",
        f"{100 * way:.0f}%",
        f"{row['error']:.3f}",
        f"{row['parameters'][1] / row['parameters'][0]:.0%}",
        f"{row['flops']:.0%}",
        f"{row['latency_ratio']:.2f}",
        f"{row['seconds']:.0f}",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def _number(value: float) -> str:
    """Percent with one digit, shares with three."""
    return f"{value:.1f}" if abs(value) > 2 else f"{value:.3f}"


if __name__ == "__main__":
    (DOCS / "architectures.md").write_text(page(json.loads((DOCS / "results" / "architectures.json").read_text())))
