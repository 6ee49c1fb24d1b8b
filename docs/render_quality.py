"""Put what runs found into docs/results/quality.json, and render that as docs/quality.md with its figure.

    python docs/render_quality.py runs/light_conv runs/paper_conv …

An experiment is called as its run's folder, that is as its TOML file. A run's rows replace those of the same experiment
and method; other rows stay, so that several runs with `--set evaluation.methods=[…]` may fill one table. Without
arguments the page is rendered from the rows there are.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from paramtrans.figures import label

DOCS = Path(__file__).parent
KEPT, FIGURE, PAGE = DOCS / "results" / "quality.json", DOCS / "results" / "quality.svg", DOCS / "quality.md"
LIGHT = {"steps": 200, "batch_size": 128, "lr": 0.1, "schedule": "one_cycle"}
PAPER = {"batch_size": 128, "lr": 0.01, "schedule": "constant"}
PAPER_LENGTHS = ({"epochs": 10, "steps": None}, {"epochs": None, "steps": 4690})
FROM_THE_ZOO = ("translated", "random_replacement", "greedy_replacement")

INTRODUCTION = """# Translations that work

Written by `python docs/render_quality.py`, not by hand, from `docs/results/quality.json`, which the runs of
`examples/quality/*.toml` filled. Every row is the mean over report hosts on the 10,000 test images, with its 95%
t-interval over hosts; nothing was tuned on these hosts, but that the learned translator's three rounds in place of one
were also tried on those of the paper's protocol. *Place* is where the mean stands between random initialisation
(0%) and the trained target (100%) on the same hosts. *Images* are looked at without their labels, but for the trained
target's. *Seconds* are wall-clock for one host while all are translated together, on a busy machine of 2 cores: compare
them within a table. *Zoo* is the number of trained hosts a learned translator had learned from.

Light protocol: 200 steps of batch 128, one-cycle to 0.1, no flips. Paper protocol: 10 epochs at 0.01, with flips.
"""


def main(folders: list[str]) -> None:
    rows = {key(row): row for row in (json.loads(KEPT.read_text()) if KEPT.exists() else [])}
    for folder in map(Path, folders):
        run = json.loads((folder / "run.json").read_text())
        evaluation = json.loads((folder / "evaluation.json").read_text())
        rows |= {key(row): row for row in rows_of(folder.name, run, evaluation)}
    kept = sorted(rows.values(), key=lambda row: (row["experiment"], -row["mean"]))
    KEPT.write_text("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in kept) + "\n]\n")
    PAGE.write_text(page(kept))
    draw(kept)


def key(row: dict[str, Any]) -> tuple[str, str]:
    return row["experiment"], row["method"]


def rows_of(name: str, run: dict[str, Any], evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    """What one run says of each method."""
    config = run["config"]
    goes_on = {method["label"] for method in config["evaluation"]["methods"] if method["translator"] is None}
    zoos = {method["label"]: zoo_of(method) for method in config["evaluation"]["methods"]}
    shared = {"experiment": name, "protocol": protocol(config), "target": target(config["target"])}
    return [
        {
            **shared,
            "method": method,
            "images": found.get("images", 0),
            "zoo_hosts": evaluation["zoo"]["train"] if method in {*FROM_THE_ZOO, *goes_on} else zoos.get(method, 0),
            "report_hosts": found["n"],
            "mean": round(found["mean"], 3),
            "ci95": [round(end, 3) for end in found["ci95"]],
            "gap_closed": None if found["gap_closed"] is None else round(found["gap_closed"], 4),
            "seconds_per_host": evaluation.get("seconds_per_host", {}).get(method, found.get("seconds_per_host")),
            "difference": found.get("difference"),
            "baseline": evaluation["baseline"],
        }
        for method, found in evaluation["methods"].items()
    ]


def zoo_of(method: dict[str, Any]) -> int:
    """Hosts that a method's translator learned from, where it comes from another run."""
    translator = method["translator"] or {}
    if translator.get("name") != "trained":
        return 0
    found = json.loads((Path(translator["folder"]) / "evaluation.json").read_text())
    return int(found["zoo"]["train"])


def protocol(config: dict[str, Any]) -> str:
    """`light`, `paper` or `other`, by how the hosts were trained."""
    step1, flip = config["zoo"]["step1"], config["task"].get("flip", False)
    if step1 == {**step1, **LIGHT} and not flip:
        return "light"
    if flip and any(step1 == {**step1, **PAPER, **length} for length in PAPER_LENGTHS):
        return "paper"
    return "other"


def target(options: dict[str, Any]) -> str:
    """The target block in a word or two."""
    sizes = [f"{options['hidden']} hidden"] if options.get("hidden") else []
    return ", ".join([options["name"], *sizes, *(["biases"] if options.get("bias") else [])])


def page(rows: list[dict[str, Any]]) -> str:
    """All tables, one for each experiment."""
    parts = [INTRODUCTION, f"![Accuracy against seconds]({FIGURE.relative_to(DOCS)})\n"]
    for name in dict.fromkeys(row["experiment"] for row in rows):
        own = [row for row in rows if row["experiment"] == name]
        parts.append(f"## {name}\n\n{own[0]['protocol']} protocol, target {own[0]['target']}\n\n{table(own)}\n")
    return "\n".join(parts)


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| method | images | zoo | seconds a host | mean % | 95% interval | place | hosts |", "| --- " * 8 + "|"]
    for row in rows:
        low, high = row["ci95"]
        place = "–" if row["gap_closed"] is None else f"{100 * row['gap_closed']:.0f}%"
        seconds = "–" if row["seconds_per_host"] is None else f"{row['seconds_per_host']:.2g}"
        cells = [label(row["method"]), f"{row['images']:,}", f"{row['zoo_hosts']:,}", seconds, f"{row['mean']:.1f}"]
        lines.append(f"| {' | '.join([*cells, f'{low:.1f} – {high:.1f}', place, str(row['report_hosts'])])} |")
    return "\n".join(lines)


def draw(rows: list[dict[str, Any]]) -> None:
    """Accuracy against seconds for one host, one panel for each experiment; filled where no image is looked at."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "quality"
    names = list(dict.fromkeys(row["experiment"] for row in rows))
    figure = Figure(figsize=(8, 0.4 + 3.4 * max(1, len(names))), layout="constrained")
    panels = figure.subplots(max(1, len(names)), 1, squeeze=False)[:, 0]
    for axes, name in zip(panels, names, strict=False):
        for row in (row for row in rows if row["experiment"] == name and row["seconds_per_host"]):
            colour = "#2f7de1" if row["zoo_hosts"] else "#d9730d"
            low, high = row["ci95"]
            axes.plot([row["seconds_per_host"]] * 2, [low, high], color=colour, linewidth=1.5)
            face = "none" if row["images"] else colour
            axes.plot(row["seconds_per_host"], row["mean"], "o", color=colour, markerfacecolor=face)
            axes.annotate(
                label(row["method"]), (row["seconds_per_host"], row["mean"]), (6, 3), textcoords="offset points"
            )
        axes.set(xscale="log", xlabel="seconds for one host", ylabel="accuracy, %", title=name)
        axes.grid(alpha=0.3)
    figure.savefig(FIGURE, metadata={"Date": None})


if __name__ == "__main__":
    main(sys.argv[1:])
