"""Put what runs found into docs/results/quality.json, and render that: docs/quality.md and docs/quality-tables.md.

    python docs/render_quality.py runs/light_conv runs/paper_conv …

An experiment is called as its run's folder, that is as its TOML file. A run's rows replace those of the same experiment
and method; other rows stay, so that several runs with `--set evaluation.methods=[…]` may fill one table. The runs of a
sweep (a folder with runs in it) become one experiment, or one each where their targets or hosts differ. Without
arguments the page is rendered from the rows there are. Its words stand in `quality_words.py`.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from pages import folded, wrapped
from quality_words import BEGINNING, FOLLOWS, INTRODUCTION, NOTES, READING
from summaries import filled, quality

from paramtrans.ops.statistics import gap_closed, summarise
from paramtrans.report.figures import label

DOCS = Path(__file__).parent
KEPT, FIGURE = DOCS / "results" / "quality.json", DOCS / "results" / "quality.svg"
PAGE, TABLES = DOCS / "quality.md", DOCS / "quality-tables.md"
LIGHT = {"steps": 200, "batch_size": 128, "lr": 0.1, "schedule": "one_cycle"}
PAPER = {"batch_size": 128, "lr": 0.01, "schedule": "constant"}
PAPER_LENGTHS = ({"epochs": 10, "steps": None}, {"epochs": None, "steps": 4690})
MODELS = (1, 100, 10_000)
"""How many models share a learned translator's zoo and training in the figure."""
QUICKEST = 1e-3
"""Seconds from which on a method is in the figure; what is quicker looks at nothing, and is in the tables."""
SHOWN = [
    f"{kind}_{target}" for kind in ("light", "learned", "paper") for target in ("conv", "mlp", "attention", "attn")
]
SHOWN += ["learned_on_paper", "learned_zoo"]
"""Experiments in the figure; the others vary one thing."""
HIDDEN = ("random_init", "hosts_64", "hosts_128", "hosts_256")
"""Methods of theirs that are in the tables alone: far below, or between others."""
FROM_THE_ZOO = ("translated", "random_replacement", "greedy_replacement")


def main(folders: list[str]) -> None:
    rows = {key(row): row for row in (json.loads(KEPT.read_text()) if KEPT.exists() else [])}
    for folder in map(Path, folders):
        members = members_of(folder)
        measured = rows_of_sweep(folder, members) if members else rows_of(folder.name, *read(folder))
        rows |= {key(row): row for row in measured}
    kept = sorted(map(placed(rows.values()), rows.values()), key=lambda row: (row["experiment"], -row["mean"]))
    KEPT.write_text("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in kept) + "\n]\n")
    PAGE.write_text(page(kept))
    TABLES.write_text(tables(kept))
    draw(kept)


def placed(rows: Iterable[dict[str, Any]]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Gives a row that has none its place, by what other runs of its experiment found on the same hosts."""
    means: dict[str, dict[str, float | None]] = {}
    for row in rows:
        means.setdefault(row["experiment"], {})[row["method"]] = row["mean"]

    def of(row: dict[str, Any]) -> dict[str, Any]:
        share = gap_closed(means[row["experiment"]], row["method"]) if row["gap_closed"] is None else row["gap_closed"]
        return {**row, "gap_closed": None if share is None else round(share, 4)}

    return of


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a run's folder says of how it was made, and of what it found."""
    return tuple(json.loads((folder / name).read_text()) for name in ("run.json", "evaluation.json"))  # type: ignore[return-value]


def members_of(folder: Path) -> list[Path]:
    """What the finished runs of a sweep found, in its order; none for a single run."""
    if not (folder / "sweep.json").exists():
        return []
    return [folder / run["name"] / "evaluation.json" for run in json.loads((folder / "sweep.json").read_text())["runs"]]


def rows_of_sweep(folder: Path, members: list[Path]) -> list[dict[str, Any]]:
    """The run's own translator of each member, and what all of them are compared with, from the first.

    Members that differ by the translator's seed alone also give a row of their mean.
    """
    runs = {path.parent.name: read(path.parent) for path in members}
    if len({json.dumps([run["config"][part] for part in ("target", "report")]) for run, _ in runs.values()}) > 1:
        return [row for name, run in runs.items() for row in rows_of(f"{folder.name}_{name}", *run)]
    first, *_ = runs.values()
    seeds = len({(run["config"]["training"] or {}).get("seed") for run, _ in runs.values()}) == len(runs) > 1
    names = {name: f"seed {name}" if seeds else name for name in runs}
    baseline = {"baseline": next(iter(names.values()))}
    shared = [row | baseline for row in rows_of(folder.name, *first) if row["method"] != "translated"]
    by_seed = {
        name: next(r for r in rows_of(folder.name, *run) if r["method"] == "translated") for name, run in runs.items()
    }
    hosts = {name: torch.tensor(run["hosts"]["accuracies"]["translated"]) for name, (_, run) in runs.items()}
    apart = {name: summarise(accuracies - next(iter(hosts.values()))) for name, accuracies in hosts.items()}
    rows = [
        {**row, "method": names[name], **baseline, "difference": {"mean": apart[name].mean, "ci95": apart[name].ci95}}
        for name, row in by_seed.items()
    ]
    return shared + rows + ([mean_of_seeds(by_seed, runs)] if seeds else [])


def mean_of_seeds(by_seed: dict[str, dict[str, Any]], runs: dict[str, tuple[Any, Any]]) -> dict[str, Any]:
    """The mean over seeds on each host, with its interval over hosts, and how far apart the seeds are."""
    every = torch.tensor([evaluation["hosts"]["accuracies"]["translated"] for _, evaluation in runs.values()])
    summary, row, (_, evaluation) = summarise(every.mean(0)), next(iter(by_seed.values())), next(iter(runs.values()))
    means = {name: method["mean"] for name, method in evaluation["methods"].items()}
    share = gap_closed({**means, "translated": summary.mean}, "translated")
    return {
        **row,
        "method": f"translated, mean of {len(runs)} seeds",
        "mean": round(summary.mean, 3),
        "ci95": [round(end, 3) for end in summary.ci95],
        "gap_closed": None if share is None else round(share, 4),
        "difference": None,
        "seed_deviation": round(every.mean(1).std().item(), 3),
    }


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
            "images": result.get("images", 0),
            "zoo_hosts": evaluation["zoo"]["train"] if method in {*FROM_THE_ZOO, *goes_on} else zoos.get(method, 0),
            "report_hosts": result["n"],
            "mean": round(result["mean"], 3),
            "ci95": [round(end, 3) for end in result["ci95"]],
            "gap_closed": None if result["gap_closed"] is None else round(result["gap_closed"], 4),
            "seconds_per_host": evaluation.get("seconds_per_host", {}).get(method, result.get("seconds_per_host")),
            "difference": result.get("difference"),
            "baseline": evaluation["baseline"],
            **(shared_seconds(evaluation) if method in {"translated", *goes_on} else {}),
        }
        for method, result in evaluation["methods"].items()
    ]


def shared_seconds(evaluation: dict[str, Any]) -> dict[str, float]:
    """What the zoo and the translator's training took, which all models share that are ever translated."""
    pays = evaluation["break_even"]
    return {"zoo_seconds": round(pays["zoo_seconds"], 1), "training_seconds": round(pays["training_seconds"], 1)}


def zoo_of(method: dict[str, Any]) -> int:
    """Hosts that a method's translator learned from, where it comes from another run."""
    translator = method["translator"] or {}
    if translator.get("name") != "trained":
        return 0
    evaluation = json.loads((Path(translator["folder"]) / "evaluation.json").read_text())
    return int(evaluation["zoo"]["train"])


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
    """The summary, what follows from it, and single questions."""
    by_key = {key(row): row for row in rows}
    parts = [
        wrapped(filled(BEGINNING, by_key)),
        "![Accuracy of each method, with intervals](figures/quality.svg)\n",
        f"{quality(by_key).markdown()}\n",
        wrapped(filled(READING, by_key)),
        wrapped(filled(FOLLOWS, by_key)),
        *(folded(question, wrapped(filled(note, by_key))) for question, note in NOTES.items()),
        "Written by `python docs/render_quality.py` from `docs/results/quality.json`.\n",
    ]
    return "\n".join(parts)


def tables(rows: list[dict[str, Any]]) -> str:
    """All tables, one for each experiment."""
    parts = [INTRODUCTION, f"![Accuracy against seconds]({FIGURE.relative_to(DOCS)})\n"]
    for name in dict.fromkeys(row["experiment"] for row in rows):
        chosen = [row for row in rows if row["experiment"] == name]
        parts.append(
            f"## {name}\n\n{chosen[0]['protocol']} protocol, target {chosen[0]['target']}\n\n{table(chosen)}\n"
        )
    return "\n".join(parts)


def table(rows: list[dict[str, Any]]) -> str:
    baseline = next(
        (name for name, _ in Counter(row["baseline"] for row in rows if row["baseline"]).most_common(1)), ""
    )
    heads = ["method", "images", "zoo", "seconds a host", "mean %", "95% interval", "place", "hosts"]
    heads += [f"less {label(baseline)}"] if baseline else []
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for row in rows:
        low, high = row["ci95"]
        closed = "–" if row["gap_closed"] is None else f"{100 * row['gap_closed']:.0f}%"
        seconds = "–" if row["seconds_per_host"] is None else f"{row['seconds_per_host']:.2g}"
        cells = [label(row["method"]), f"{row['images']:,}", f"{row['zoo_hosts']:,}", seconds, f"{row['mean']:.1f}"]
        cells += [f"{low:.1f} – {high:.1f}", closed, str(row["report_hosts"])]
        cells += [difference(row, baseline)] if baseline else []
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def difference(row: dict[str, Any], baseline: str) -> str:
    """What a method reaches less the baseline, host by host, with its 95% interval."""
    gap = row["difference"]
    if gap is None or row["baseline"] != baseline or row["method"] == baseline:
        return "–"
    low, high = gap["ci95"]
    return f"{gap['mean']:+.1f} ({low:+.1f} to {high:+.1f})".replace("-", "−")


def draw(rows: list[dict[str, Any]]) -> None:
    """Accuracy against seconds for one host, a panel for each protocol and target.

    Filled: no image is looked at. A learned translator stands where it translates alone, and at its share
    of zoo and training among so many models.
    """
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "quality"
    panels = drawn(rows)
    figure = Figure(figsize=(14, 4.2 * -(-max(1, len(panels)) // 2)), layout="constrained")
    grid = figure.subplots(-(-max(1, len(panels)) // 2), 2, squeeze=False).flatten()
    for axes, ((protocol, target), panel) in zip(grid, panels.items(), strict=False):
        marks, shared_by = [], [row for row in panel.values() if "zoo_seconds" in row and not row["images"]]
        explained = min(shared_by, key=lambda row: row["mean"], default=None)
        for number, row in enumerate(sorted(panel.values(), key=lambda row: -row["mean"]), 1):
            colour = "#2f7de1" if row["zoo_hosts"] else "#d9730d"
            face, seconds = "none" if row["images"] else colour, row["seconds_per_host"]
            axes.plot([seconds] * 2, row["ci95"], color=colour, linewidth=1.5)
            name = f"{number}  {label(row['method'])}"
            marks += axes.plot(seconds, row["mean"], "o", color=colour, markerfacecolor=face, label=name)
            side = (7, 0) if number % 2 else (-7, 0)
            at = {"textcoords": "offset points", "ha": "left" if number % 2 else "right", "va": "center", "fontsize": 8}
            axes.annotate(str(number), (seconds, row["mean"]), side, **at)
            if "zoo_seconds" in row:
                shared = row["zoo_seconds"] + row["training_seconds"]
                places = [seconds + shared / models for models in MODELS]
                axes.plot([seconds, *places], [row["mean"]] * (1 + len(places)), ":", color=colour)
                axes.plot(places, [row["mean"]] * len(places), "|", color=colour)
                if row is explained:
                    for models, place_ in zip(MODELS, places, strict=True):
                        at = {"textcoords": "offset points", "ha": "center", "fontsize": 7, "color": colour}
                        axes.annotate(f"{models:,}", (place_, row["mean"]), (0, -10), **at)
        axes.set(xscale="log", xlim=(QUICKEST, None), xlabel="seconds for one host", ylabel="accuracy, %")
        axes.set_title(f"{protocol} protocol, {target}", fontsize=10)
        axes.grid(alpha=0.3)
        axes.legend(handles=marks, loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    figure.savefig(FIGURE, metadata={"Date": None})


def drawn(rows: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, dict[str, Any]]]:
    """By protocol and target the rows that a panel shows: of experiments that compare methods on all its hosts."""
    panels: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for row in rows:
        shown = row["experiment"] in SHOWN and row["method"] not in HIDDEN
        if shown and (row["seconds_per_host"] or 0) > QUICKEST:
            panels.setdefault((row["protocol"], row["target"]), {}).setdefault(row["method"], row)
    return {key: panel for key, panel in sorted(panels.items()) if len(panel) > 2}


if __name__ == "__main__":
    main(sys.argv[1:])
