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
ON_GPU = """## The same on a GPU

{device}; 256 hosts at once where many are, float32 without reduced precision throughout. All data are on the device but
for the published way's. Turns end when the device is done.
"""
HEAD = """| | against | ratio | spread | ours | theirs | unit |
| --- | --- | --- | --- | --- | --- | --- |"""


def main() -> None:
    rows = json.loads((RESULTS / "benchmarks.json").read_text())
    sections = [INTRODUCTION.format(device=rows[0]["device"]), "\n".join([HEAD, *map(line, rows)]) + "\n"]
    if (RESULTS / "benchmarks_gpu.json").exists():
        rows = json.loads((RESULTS / "benchmarks_gpu.json").read_text())
        sections += [ON_GPU.format(device=rows[0]["device"]), "\n".join([HEAD, *map(line, rows)]) + "\n"]
    sections += [section(path) for path in sorted(RESULTS.glob("scale_*.json"))]
    (DOCS / "benchmarks.md").write_text("\n".join(sections))


def line(row: dict[str, Any]) -> str:
    """One row, as Markdown."""
    numbers = [f"{row['ratio']:.2f}×", f"{row['spread']:.2f}", f"{row['ours']:,g}", f"{row['theirs']:,g}"]
    return f"| {' | '.join([row['name'], row['against'], *numbers, row['unit']])} |"


def section(path: Path) -> str:
    """A table of its own: its title, what was done, and rows with the same columns."""
    found = json.loads(path.read_text())
    columns = list(found["rows"][0])
    body = [f"| {' | '.join(str(row[column]) for column in columns)} |" for row in found["rows"]]
    table = "\n".join([f"| {' | '.join(columns)} |", f"| {' | '.join('---' for _ in columns)} |", *body])
    return f"## {found['title']}\n\n{found['text']}\n\n{table}\n"


if __name__ == "__main__":
    main()
