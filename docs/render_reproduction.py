"""Renders `docs/reproduction.md`: the paper's numbers beside what finished runs of `examples/paper/` wrote.

    python docs/render_reproduction.py runs/table3 runs/fig7 …

Their `sweep.json`, or `evaluation.json`, is copied to `docs/results/paper/`; without arguments the page is rendered
from there. Nothing measured is typed here; the numbers below are the paper's.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from paramtrans import components
from paramtrans.errors import SpecMismatch
from paramtrans.sweepreport import cells

DOCS = Path(__file__).parent
KEPT = DOCS / "results" / "paper"
EXAMPLES = DOCS.parent / "examples" / "paper"

ILLEGIBLE, UNPUBLISHED = "not legible", "not published"
RIVALS = (("random_init", "27.38"), ("random_replacement", "23.67"), ("greedy_replacement", "26.53"))

Line = tuple[str, str, str, str]
"""What it is, the paper's number, and the run and the column it is measured by."""


def rates(size: str, *values: str) -> list[Line]:
    """A Mixer with dropout 0, 0.1, 0.2 and 0.3."""
    rows = zip(("0.0", "0.1", "0.2", "0.3"), values, strict=True)
    return [(f"{size}, dropout {rate}", value, f"{size}-{rate}", "translated") for rate, value in rows]


FAMILIES = (
    ("low-rank factorisation", "low_rank", "translated", "low_rank"),
    ("pruning", "pruning", "translated", "prune"),
    ("quantisation, 8 bits", "quantisation_8", "translated", "quantise"),
    ("quantisation, 4 bits", "quantisation_4", "translated", "quantise"),
    ("distillation", "pruning", "distillation", "matching"),
    ("translation", "translation", "translated", "mixer"),
)
"""Of Table 1: what it is, the run and the method by which it is measured, and its translator."""

PAPER: dict[str, tuple[str, list[Line]]] = {
    "fig4": (
        "Fig. 4: three kinds of translators at about equal FLOPs (last training loss)",
        [(kind, UNPUBLISHED, kind, "loss") for kind in ("mixer", "attention", "convolution")],
    ),
    "table2": (
        "Table 2: sizes (parameters)",
        [
            (size, f"{m} M", size, "parameters")
            for size, m in zip(("small", "base", "large", "wide"), ("1.32", "2.61", "3.90", "4.11"), strict=True)
        ],
    ),
    "table3": (
        "Table 3: rivals, and four Mixers with dropout, 300 epochs (mean accuracy, %)",
        [
            *((name.replace("_", " "), value, "small-0.0", name) for name, value in RIVALS),
            *rates("small", "45.54", "31.08", "30.23", "30.63"),
            *rates("base", "47.33", "32.49", "31.20", "31.19"),
            *rates("large", "44.99", f"about 39 ({ILLEGIBLE})", f"about 34 ({ILLEGIBLE})", "31.14"),
            *rates("wide", "30.31", "30.98", ILLEGIBLE, "29.08"),
        ],
    ),
    "fig6": (
        "Fig. 6: training loss and accuracy (mean accuracy, %)",
        [("small", "45.54", "small", "translated"), ("wide", "30.31", "wide", "translated")],
    ),
    "table4": (
        "Table 4: longer training, 1,000 epochs (mean accuracy, %)",
        [
            *rates("small", "46.56", "39.85", "31.87", "31.66"),
            *rates("base", "46.16", "49.41", "47.11", "32.77"),
            *rates("large", "51.21", "52.07", "50.00", "49.31"),
        ],
    ),
    "table5": (
        "Table 5: fewer pairs, with augmentation (mean accuracy, %)",
        [
            ("all pairs", "44.99", "all_pairs", "translated"),
            ("a sixth of them", "30.93", "none", "translated"),
            ("a sixth, masking", "48.76", "masking", "translated"),
            ("a sixth, noise", "49.52", "noise", "translated"),
        ],
    ),
    "table6": (
        "Table 6: to another architecture (mean accuracy, %)",
        [
            ("MLP, random initialisation", "26.60", "mlp", "random_init"),
            ("MLP, translated", "37.33", "mlp", "translated"),
            ("attention, random initialisation", "26.72", "attention", "random_init"),
            ("attention, translated", "33.55", "attention", "translated"),
        ],
    ),
    "fig5": (
        "Fig. 5: feature maps (in the run's report; mean accuracy, %)",
        [("translated", "51.21", "", "translated")],
    ),
    "fig7": (
        "Fig. 7: histogram of accuracies (in the run's report; mean accuracy, %)",
        [("random initialisation", "27.38", "", "random_init"), ("translated", "52.07", "", "translated")],
    ),
    "fig8": (
        "Fig. 8: source networks trained on a share of the data (gain over random initialisation, points)",
        [
            (f"{share:.0%} of the training images", ILLEGIBLE, str(share), "gain")
            for share in (0.01, 0.03, 0.1, 0.3, 1.0)
        ],
    ),
    "transfer": (
        "Section 5.5: hosts of another data set around frozen source blocks (gain over random initialisation, points)",
        [
            ("MNIST's own report hosts", UNPUBLISHED, "mnist", "gain"),
            ("USPS", "+11.11", "usps", "gain"),
            ("the small digits of scikit-learn", UNPUBLISHED, "digits", "gain"),
        ],
    ),
    "tasks": (
        "Section 5.5: one translator for two data sets (mean accuracy, %)",
        [
            (f"{data}, {how}", UNPUBLISHED, f"{name}_{run}", "translated")
            for data, name in (("MNIST", "mnist"), ("small digits", "digits"))
            for how, run in (("a translator of its own", "own"), ("the common translator", "common"))
        ],
    ),
    "update": (
        "The enterprise: source networks trained further, translated again",
        [
            (f"{when}: {what}", UNPUBLISHED, run, column)
            for when, run in (("before", "before"), ("updated", "updated"))
            for what, column in (
                ("translated, %", "translated"),
                ("trained target (step 2 again), %", "trained_target"),
                ("translation, seconds a host", "translated_seconds"),
                ("step 2, seconds a host", "trained_target_seconds"),
            )
        ],
    ),
}

INTRODUCTION = """# The paper's tables and figures

Written by `python docs/render_reproduction.py` from what finished runs wrote, not by hand. Each section is one file,
[`examples/paper/<name>.toml`](../examples/paper/), run as `paramtrans run examples/paper/<name>.toml` on one core of a
2-core server without a GPU, which it shared with other work. That is the scale `small`: hosts of a light protocol (200
steps, one-cycle), a few hundred pairs, shallow and narrow Mixers. So the measured figures are **not** the paper's
experiment at its own size, and random initialisation alone stands far higher here than in the paper. What can be
compared is the order of the lines. `--set scale=full` is the paper's own size; it was not run.

Selection used other hosts than those reported, and images held out of training. *Best of all* is the paper's way: the
best of all evaluations during training, picked on the report hosts themselves. ± is half of the 95% t-interval over
hosts. One translator seed.

"""


def main(folders: list[str]) -> None:
    KEPT.mkdir(parents=True, exist_ok=True)
    for folder in map(Path, folders):
        kept = read(folder)
        (KEPT / f"{folder.name}.json").write_text(json.dumps(kept, indent=1) + "\n")
    sections = [section(name, title, lines) for name, (title, lines) in PAPER.items()]
    (DOCS / "reproduction.md").write_text("\n".join([INTRODUCTION, families(), *sections]))


def read(folder: Path) -> list[dict[str, Any]]:
    """What is kept of a sweep, or of a single run as a sweep of one, with its seeds and curves left out."""
    if (folder / "sweep.json").exists():
        rows: list[dict[str, Any]] = json.loads((folder / "sweep.json").read_text())["runs"]
        return rows
    result = json.loads((folder / "evaluation.json").read_text())
    run = json.loads((folder / "run.json").read_text())
    row = {key: value for key, value in result.items() if key not in ("hosts", "format")}
    return [{"name": "", "values": {}, "dir": ".", "seconds": run["seconds"], **row}]


def section(name: str, title: str, lines: list[Line]) -> str:
    """One experiment: the paper's numbers beside the measured ones, and the whole table of the runs."""
    runs = kept(name)
    found = [
        f"| {what} | {paper} | {measured(runs.get(run), column)} | {best(runs.get(run), column)} |"
        for what, paper, run, column in lines
    ]
    head = ["| | paper | measured | best of all |", "| --- | --- | --- | --- |"]
    return "\n".join([f"## {title}", "", *head, *found, "", *setting(list(runs.values())), ""])


def families() -> str:
    """Table 1, where the paper compares in words."""
    runs = kept("table1")
    head = [
        "| | accuracy, % | the block's bytes | unlabelled images it looks at | seconds a host | to attention |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    found = [family(what, runs.get(run), method, translator) for what, run, method, translator in FAMILIES]
    said = (
        "The paper compares these families in words: what re-training each needs, and whether other architectures are "
        "possible. Here they meet on the same hosts. *To attention*: whether its translator takes an attention target, "
        "asked of the code. None of them sees a label. Translation is the only one that learns from other networks "
        "first; distillation the only one that trains for each network."
    )
    return "\n".join(
        ["## Table 1: families of compression", "", said, "", *head, *found, "", *setting([*runs.values()]), ""]
    )


def family(what: str, row: dict[str, Any] | None, method: str, translator: str) -> str:
    other = "yes" if takes(translator, "attention") else "no"
    if row is None:
        return f"| {what} | not measured | | | | {other} |"
    size = row["translator"]["target_bytes"] if method == "translated" else 4 * row["blocks"]["target"]["parameters"]
    share = size / (4 * row["blocks"]["source"]["parameters"])
    seconds, images = row["seconds_per_host"][method], row["methods"][method]["images"]
    return f"| {what} | {measured(row, method)} | {size:,} ({share:.0%}) | {images:,} | {seconds:.2g} | {other} |"


def takes(translator: str, target: str) -> bool:
    """Whether a translator from the paper's source block takes this target."""
    source, other = (components().create("block_adapter", name, channels=6) for name in ("basic_block", target))
    try:
        components().create("translator", translator, source, other)
    except SpecMismatch:
        return False
    return True


def kept(name: str) -> dict[str, dict[str, Any]]:
    """The runs of an experiment by name."""
    path = KEPT / f"{name}.json"
    return {row["name"]: row for row in json.loads(path.read_text())} if path.exists() else {}


def measured(row: dict[str, Any] | None, column: str) -> str:
    if row is None:
        return "not measured"
    _, [[cell]] = cells([{**row, "values": {}}], [column])
    return cell


def best(row: dict[str, Any] | None, column: str) -> str:
    """The paper's way, for translated blocks."""
    peeked = row and row.get("paper_way")
    return f"{peeked['best']:.1f}" if peeked and column == "translated" else ""


def setting(rows: list[dict[str, Any]]) -> list[str]:
    """How many hosts, how long, and between which bounds the translators stand."""
    if not rows:
        return ["Not measured yet.", ""]
    first, seconds = rows[0], sum(row["seconds"].get("training", 0.0) for row in rows)
    hosts = ", ".join(f"{count} {role}" for role, count in first["zoo"].items())
    bounds = [
        f"{what} {measured(first, column)}"
        for what, column in (("trained target", "trained_target"), ("zero block", "zero_block"))
        if column in first["methods"]
    ]
    epochs = (first["training"] or {}).get("epochs")
    return [
        f"Scale small; hosts of the first run: {hosts}; {epochs} epochs; {seconds / 60:.0f} minutes of translator "
        f"training in all. {'; '.join(bounds).capitalize()}.",
        "",
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
