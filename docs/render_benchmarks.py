"""Renders `docs/benchmarks.md` from what `python -m benchmarks` wrote to `docs/results/`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
RESULTS = DOCS / "results"

INTRODUCTION = """# Speed

Written by `docs/render_benchmarks.py` from what `python -m benchmarks` measured. Every contestant runs in turn in the
same process on the same machine ({device}), forwards and backwards through the list, after a round that does not
count; a ratio is the median of the ratios of all rounds, its spread the largest less the smallest: a wide one says
that the machine was busy with other things. Hosts are the paper's: 6 channels, MNIST with random flips, batches of
128, SGD. Ours is measured with everything a shard needs, building its hosts included; rivals are measured without
their set-up.
`benchmarks/` holds the rivals, one a file.
"""
ON_GPU = """## On a GPU

{device}; float32 without reduced precision throughout, all data on the device. `python -m benchmarks` measures
the table above there too; where no spread is given, the row is a single run of ten steps after two that do not count,
not a series of turns. Gradients of one step of training differed from float64 by at most 1.1e-6 of their size.{missing}
"""
MISSING = """ Not measured on a GPU yet: {rows}. The gradient behind pooling, which took much of step 1 here, has since
been made cheaper, and convolutions work on larger tiles; neither has been timed."""
HEAD = """| | against | ratio | spread | ours | theirs | unit |
| --- | --- | --- | --- | --- | --- | --- |"""


def main() -> None:
    rows = json.loads((RESULTS / "benchmarks.json").read_text())
    sections = [INTRODUCTION.format(device=rows[0]["device"]), table(rows)]
    if (RESULTS / "benchmarks_gpu.json").exists():
        rows, there = json.loads((RESULTS / "benchmarks_gpu.json").read_text()), rows
        missing = [f"{row['name']} against {row['against']}" for row in there if not measured(row, rows)]
        note = MISSING.format(rows="; ".join(missing)) if missing else ""
        sections += [ON_GPU.format(device=rows[0]["device"], missing=note), table(rows)]
    sections += [section(path) for path in sorted(RESULTS.glob("scale_*.json"))]
    (DOCS / "benchmarks.md").write_text("\n".join(sections))


def measured(row: dict[str, Any], rows: list[dict[str, Any]]) -> bool:
    """Whether some of `rows` compares the same with the same kind of rival; numbers of models may differ."""
    return any(
        other["name"].startswith(row["name"]) and other["against"].split()[:2] == row["against"].split()[:2]
        for other in rows
    )


def table(rows: list[dict[str, Any]]) -> str:
    return "\n".join([HEAD, *map(line, rows)]) + "\n"


def line(row: dict[str, Any]) -> str:
    """One row, as Markdown."""
    spread = "" if row["spread"] is None else f"{row['spread']:.2f}"
    numbers = [f"{row['ratio']:.2f}×", spread, amount(row["ours"]), amount(row["theirs"])]
    return f"| {' | '.join([row['name'], row['against'], *numbers, row['unit']])} |"


def amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 100_000 else f"{value:,g}"


def section(path: Path) -> str:
    """A table of its own: its title, what was done, and rows with the same columns."""
    document = json.loads(path.read_text())
    columns = list(document["rows"][0])
    body = [f"| {' | '.join(str(row[column]) for column in columns)} |" for row in document["rows"]]
    table = "\n".join([f"| {' | '.join(columns)} |", f"| {' | '.join('---' for _ in columns)} |", *body])
    return f"## {document['title']}\n\n{document['text']}\n\n{table}\n"


if __name__ == "__main__":
    main()
