"""Renders `docs/coverage.md` from `docs/results/coverage.json`, which `python -m benchmarks.coverage` fills."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean, median
from typing import Any

DOCS = Path(__file__).parent
HEAD = """# Which networks are translated

Written by `python docs/render_coverage.py`, not by hand. `python -m benchmarks.coverage` builds networks of three
libraries with random weights, as small as each library allows. It takes half of the units of each group that the graph
shows, and holds every group to the proof: the network's own code without these units gives what the whole network gives
with them at zero. "Kept" is the mean over the networks that became smaller. A network is not done where it took longer
than the limit (240 s on a core beside other work, 500 s for the largest) or needed more than 8 GiB. torchvision's
largest, and what was translated with inputs, had more: up to an hour and 20 GiB.

| library | tried | made smaller | parameters kept | operations kept | largest difference |
| --- | ---: | ---: | ---: | ---: | ---: |
"""
REFIT = """
## Translated with 16 inputs

`--refit`: the same networks as a user would translate them, `translate(network, ratio=0.5, calibrate=inputs)` with 16
inputs of noise, where they take one tensor. The error is that of all outputs on 16 other inputs, relative to their
norm; of networks whose head begins as zeros, torchvision's ViTs, none is said. The weights are random, so errors say
that layers were solved for, and nothing of quality ([Real networks](real.md) has that).

| library | tried | translated | operations kept | seconds of a core, median | error, median | largest |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |"""
RIVAL = """
## Torch-Pruning beside it

`--rival`: on the same networks and inputs half of the channels of every layer but the last Linear one, by their norm,
as it does without being told anything of a network. It counts where the smaller network runs; nothing is proven of it.
It makes residual streams smaller too, so it keeps less. It had 30 seconds of a core for each network of timm and most
of transformers, and 120 of a busy one for those of torchvision; with more, some of the last column may be done.

| library | tried | made smaller here | by Torch-Pruning | parameters kept | operations kept | not done in time |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |"""
TABLE = """
## Each network

A group is *refused* where the proof fails: mostly heads, where the code insists on their number
(windows of Swin). It stays as wide as it is.

| library | network | groups | refused | parameters kept | operations kept | seconds |
| --- | --- | ---: | ---: | ---: | ---: | ---: |
"""


def page(rows: list[dict[str, Any]]) -> str:
    """A summary by library, then each network, then those that were not done."""
    done = [row for row in rows if row.get("groups")]
    lines = [_library(zoo, [row for row in rows if row["zoo"] == zoo]) for zoo in dict.fromkeys(r["zoo"] for r in rows)]
    networks = [_network(row) for row in done]
    missing = [f"- {row['zoo']} {row['model']}: {_reason(row)}" for row in rows if not row.get("groups")]
    rest = ["", "## Not made smaller", "", *missing] if missing else []
    further = [*_refit(rows), *_rival(rows)]
    return "\n".join([HEAD.rstrip("\n"), *lines, *further, TABLE.rstrip("\n"), *networks, *rest]) + "\n"


def _refit(rows: list[dict[str, Any]]) -> list[str]:
    """What became of the networks that were translated with inputs, by library; nothing where none were."""
    lines = []
    for zoo in dict.fromkeys(row["zoo"] for row in rows if "refit" in row):
        given = [row["refit"] for row in rows if row["zoo"] == zoo and "refit" in row]
        done = [refit for refit in given if "output_error" in refit]
        kept = f"{100 * fmean(refit['flops_kept'] for refit in done):.0f}%"
        seconds = f"{median(refit['seconds'] for refit in done):.0f}"
        known = [refit["output_error"] for refit in done if refit["output_error"] is not None]
        errors = [f"{rule(known):.2g}" for rule in (median, max)]
        lines.append(f"| {' | '.join((zoo, str(len(given)), str(len(done)), kept, seconds, *errors))} |")
    return [REFIT, *lines] if lines else []


def _rival(rows: list[dict[str, Any]]) -> list[str]:
    """What Torch-Pruning makes of the networks that it was given, by library; nothing where it was given none."""
    compared = [row for row in rows if "torch_pruning" in row]
    if not compared:
        return []
    lines = [RIVAL]
    for zoo in dict.fromkeys(row["zoo"] for row in compared):
        given = [row for row in compared if row["zoo"] == zoo]
        smaller = [row["torch_pruning"] for row in given if row["torch_pruning"].get("parameters_kept", 1) < 1]
        kept = [f"{100 * fmean(row[key] for row in smaller):.0f}%" for key in ("parameters_kept", "flops_kept")]
        ours = sum(bool(row.get("groups")) for row in given)
        late = sum("not done" in str(row["torch_pruning"].get("error", "")) for row in given)
        lines.append(f"| {' | '.join(map(str, (zoo, len(given), ours, len(smaller), *kept, late)))} |")
    return lines


def _library(zoo: str, rows: list[dict[str, Any]]) -> str:
    done = [row for row in rows if row.get("groups")]
    kept = (
        [f"{100 * fmean(row[key] for row in done):.0f}%" for key in ("parameters_kept", "flops_kept")] if done else []
    )
    cells = [zoo, len(rows), len(done), *(kept or ["", ""]), f"{max((r['proof'] for r in done), default=0):.0e}"]
    return f"| {' | '.join(map(str, cells))} |"


def _network(row: dict[str, Any]) -> str:
    kept = (f"{100 * row[key]:.0f}%" for key in ("parameters_kept", "flops_kept"))
    cells = (row["zoo"], row["model"], row["groups"], len(row["refused"]), *kept, row["seconds"])
    return f"| {' | '.join(map(str, cells))} |"


def _reason(row: dict[str, Any]) -> str:
    said = row.get("error") or next(iter(row.get("refused", {}).values()), "its graph shows no group that is free")
    return str(said).replace("\n", " ")[:160]


if __name__ == "__main__":
    (DOCS / "coverage.md").write_text(page(json.loads((DOCS / "results" / "coverage.json").read_text())))
