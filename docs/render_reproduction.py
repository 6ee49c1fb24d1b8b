"""Renders `docs/reproduction.md`: the paper's numbers beside what finished runs of `examples/paper/` wrote.

    python docs/render_reproduction.py --scale small runs/table3 runs/fig7 …

What is needed of their results is copied to `docs/results/paper/`; without arguments the page is rendered from there.
Nothing measured is typed here; the paper's numbers stand in `papers_numbers.py`. Runs from before `run.json` told the
machine need `--machine`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib
import pairs
from pages import folded, wrapped
from papers_numbers import FAMILIES, PAPER, RIVALS, Line
from summaries import reproduction

from paramtrans import components
from paramtrans.api.records import MeasuredBy
from paramtrans.errors import SpecMismatch
from paramtrans.report import figures, sweep_figures
from paramtrans.report.sweep import cells, gains, history

DOCS = Path(__file__).parent
KEPT = DOCS / "results" / "paper"

BEGINNING = """# The paper's tables and figures

The paper is [Knowledge Translation](https://arxiv.org/abs/2401.05772). Its translator, a Mixer, learns from pairs: the
parameters of a source block and those of a smaller block that was trained in its place. It is trained by the squared
error of these parameters alone. This page has what it reaches here, **at a small scale: at most {pairs} pairs in place
of the paper's 300,000, and source networks of a short training**. The paper's own size was not run. So the numbers are
not the paper's experiment, and accuracies start far higher here: a block of random parameters gives {random:.0f}%, in
the paper {paper}%. What can be compared is the order of the methods.

A *block of zeros* adds nothing to what enters it. It needs no translator, and so is the least that one should beat.
"""
READING = """Mean test accuracy over source networks that nothing was tuned on, ± half of its 95% interval; one seed of
the translator. The line of each table and figure is the one that is best in the paper. *Difference* is translated less
block of zeros, network by network.
"""
FOLLOWS = """## What follows

- **At this size the paper's translator does nothing useful.** It is surely better than a block of zeros in {better} of
  these {lines} lines.
- **More training makes it worse.** It begins near the block of zeros; then it learns its training pairs by heart. The
  training loss falls, and so does the accuracy on other networks (Table 4, Fig. 4, Fig. 6). Dropout, or an early
  evaluation, keeps it near the zeros.
- **More pairs bring it up to the block of zeros, not above it.** Eq. 1 is {few} points from that with {fewest} pairs,
  {many} with {most}, and the error of the best order of the hidden channels is no better there. Where it begins to
  work at all lies beyond that, or takes larger Mixers and more steps.
- **[Why squared error of parameters is stuck](exchangeable.md)** explains this; [other methods](quality.md) do work on
  the same networks.

## In detail

Each part is one file, `examples/paper/<name>.toml`, run as
`paramtrans run examples/paper/<name>.toml`.
"""
INTRODUCTION = """Scale `small`: hosts of a light protocol (200 steps, one-cycle), 256 pairs unless said otherwise,
shallow and narrow Mixers, 60 epochs. `--set scale=full` is the paper's own size; it was not run, and neither was a
curve of accuracy over pairs of the paper's protocol on a GPU, which `examples/paper/gpu_curve.py`
makes. The curve above is of light hosts on a processor. `--dry-run` says what the former would cost.

Selection used other hosts than those reported, and images held out of training. *Less zero block* is what translation
adds to a block of zeros, that is to the residual path alone, host by host. *Best of all* is the paper's way: the best
of all evaluations during training, picked on the report hosts themselves. ± is half of the 95% t-interval over hosts.
One translator seed. Each part says on which machine it was run.
"""

SAID = {
    "table1": "Quantisation to 8 bits costs nothing here, and to 4 bits less than a point, at the source's own shape. "
    "Pruning and low rank, without biases in the first and refitting in either, stay far below. Translation is the "
    "paper's Mixer, which learned from 256 light hosts and writes what amounts to a block of zeros; a translator that "
    "works reaches 83 on the same hosts ([quality](quality.md), `learned_on_paper`). These runs had `zoo.report_from` "
    "set and no trained targets.",
    "pairs": "The less often a pair is seen, the nearer the translator stays to the block of zeros: with more pairs it "
    "learns fewer of them by heart. Selection took the first of three evaluations in all runs but one; by the last, "
    "Eq. 1 from 256 pairs had fallen further. Masks, noise and other orders of the source's channels keep it at the "
    "zeros. The Mixer is the narrow one of the other parts; the one that is sixteen times as large is the Small of "
    "Table 2, trained for 20 epochs in bfloat16, and its loss still fell. A zoo of 4,208 such hosts and 4,192 targets "
    "took about 50 minutes of one core.",
    "fig4": "The Mixer reaches the lowest loss, as in the paper. Yet it has the lowest accuracy of the three.",
    "table3": "With the paper: without dropout Base is the best, and the two largest are the worst. Against it: "
    "dropout does not make the first three fall; it keeps them near the block of zeros, which is where they come to "
    "with 0.3 of it. No line passes that block. An earlier run of the same file on an H200 gave figures that differ "
    "from these by up to 7 points, which is within their intervals.",
    "table4": "Against the paper: four times as many epochs lower the accuracy of ten of the twelve lines of Table 3, "
    "while the loss falls: the Mixers learn their 256 pairs by heart. The more dropout, the nearer they stay to the "
    "block of zeros.",
    "fig8": "The paper's translator gains nothing at this size, whatever the sources were trained on, as it writes "
    "what amounts to a block of zeros at best. [The page on quality](quality.md) has one that works on such hosts "
    "(`learned_elsewhere`).",
    "transfer": "Neither on its own hosts nor on those of the other data set does the paper's translator gain "
    "anything at this size. USPS could not be downloaded. [The page on quality](quality.md) has a translator that "
    "works around the same frozen blocks (`learned_elsewhere`).",
    "update": "Translating again takes a thousandth of what step 2 takes, but is worth no more than before. A "
    "translator that works, on updated networks: [the page on quality](quality.md) (`learned_elsewhere`).",
    "tasks": "All four stand below the block of zeros (66.7 on MNIST, 57.5 on the digits), so this tells little at "
    "this size: the common translator is 12 points worse on MNIST than one of its own, and 11 better on the digits.",
    "table5": "With the paper: masking, and noise more so, make up for some of what fewer pairs lose. Against it: "
    "neither passes all pairs. But all pairs were chosen at their first evaluation, epoch 15, where they "
    "still are the block of zeros; with one every 20 epochs the same run has the 57.9 of Table 3.",
    "fig6": "The loss falls to the end, but selection takes the first evaluation in both runs, where the "
    "translator still writes what amounts to a block of zeros. A lower loss is no better block; the "
    "paper's figure says that of Wide.",
    "table2": "The paper's millions are the parameters over 2^20, cut off behind the second decimal: 1,385,965 / "
    "2^20 = 1.3217… is printed as 1.32. All four agree to the integer "
    "(`plugins/translators/tests/test_table2.py`).",
}
"""What the runs that are kept show, in words; to be looked at again when runs are replaced."""
FEW = 8
"""Report hosts below which no bounds are told."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--scale", default="small")
    parser.add_argument("--machine", help="what the runs were made on, where run.json does not tell")
    asked = parser.parse_args()
    KEPT.mkdir(parents=True, exist_ok=True)
    for folder in asked.folders:
        kept = {"scale": asked.scale, "machine": asked.machine or machine(folder), "runs": read(folder)}
        (KEPT / f"{folder.name}.json").write_text(json.dumps(kept, indent=1) + "\n")
        draw(folder)
    (DOCS / "reproduction.md").write_text(page())


def page() -> str:
    """The summary, what follows from it, and every table and figure."""
    first, reproduced = kept("table3")["small-0.0"], reproduction(kept)
    better = sum(low > 0 for _, _, (*_, (_, low, _)) in reproduced.rows)
    pairs, random = first["zoo"]["train"], first["methods"]["random_init"]["mean"]
    parts = [
        wrapped(BEGINNING.format(pairs=pairs, random=random, paper=dict(RIVALS)["random_init"])),
        "![What the paper's translator adds to a block of zeros](figures/reproduction.svg)\n",
        f"{reproduced.markdown()}\n",
        wrapped(READING),
        "![Accuracy less that of a block of zeros, over the number of pairs](figures/pairs.svg)\n",
        wrapped(FOLLOWS.format(better=better or "none", lines=len(reproduced.rows), **by_pairs())),
        folded("How it was run, and what the columns mean", INTRODUCTION),
        folded("Table 1: families of compression", families(), "table1"),
        folded("How many pairs it takes", how_many(), "pairs"),
        *(folded(title, section(name, title, lines), name) for name, (title, lines) in PAPER.items()),
        "Written by `python docs/render_reproduction.py` from `docs/results/paper/`.\n",
    ]
    return "\n".join(parts)


def read(folder: Path) -> list[dict[str, Any]]:
    """What is kept of each run of a sweep, or of a single run as a sweep of one: nothing of single hosts."""
    if (folder / "sweep.json").exists():
        rows: list[dict[str, Any]] = json.loads((folder / "sweep.json").read_text())["runs"]
    else:
        result, run = (json.loads((folder / name).read_text()) for name in ("evaluation.json", "run.json"))
        rows = [{"name": "", "values": {}, "dir": ".", "seconds": run["seconds"], **result}]
    return [
        {key: value for key, value in row.items() if key not in ("hosts", "format", "diagnosis")}
        | ({"written": written(row)} if folder.name == "pairs" else {})
        for row in rows
    ]


def written(row: dict[str, Any]) -> dict[str, float]:
    """How alike hidden units of translated blocks are, and how many of them are silent."""
    translated = row["diagnosis"]["methods"]["translated"]
    return {name: translated[name] for name in ("unit_cosine", "silent_units")}


def machine(folder: Path) -> str:
    """What the first run was made on, by its own record."""
    record = json.loads(next(iter(sorted(folder.glob("**/run.json")))).read_text())["machine"]
    cores = "1 core" if record["cores"] == 1 else f"{record['cores']} cores"
    return f"{record['device']} ({cores}, {record['processor']})"


def draw(folder: Path) -> None:
    """The figures of the paper that need more than is kept: curves over epochs, and single hosts."""
    curves = {"fig4": ("loss",), "fig6": ("loss", "select")}
    matplotlib.rcParams["svg.hashsalt"] = folder.name
    if folder.name in curves:
        runs = {path.parent.name: history(path.parent) for path in sorted(folder.glob("*/metrics.jsonl"))}
        figure = sweep_figures.curves(runs, curves[folder.name], MeasuredBy())
    elif folder.name == "fig7":
        hosts = json.loads((folder / "evaluation.json").read_text())["hosts"]["accuracies"]
        figure = figures.histogram(hosts, MeasuredBy())
    elif folder.name in ("fig8", "transfer"):
        figure = gains(read(folder))
    else:
        return
    figure.savefig(KEPT / f"{folder.name}.svg", metadata={"Date": None})


def families() -> str:
    """Table 1, where the paper compares in words."""
    runs = kept("table1")
    head = [
        "| | accuracy, % | the block's bytes | unlabelled images it looks at | seconds a host | to attention |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    rows = [family(what, runs.get(run), method, translator) for what, run, method, translator in FAMILIES]
    said = (
        "The paper compares these families in words: what re-training each needs, and whether other architectures are "
        "possible. Here they meet on the same hosts. *To attention*: whether its translator takes an attention target, "
        "asked of the code. None of them sees a label. Translation is the only one that learns from other networks "
        "first; distillation the only one that trains for each network."
    )
    lines = [*setting("table1"), *([SAID["table1"], ""] if runs else [])]
    return "\n".join([said, "", *head, *rows, "", *lines])


def by_pairs() -> dict[str, str]:
    """What Eq. 1 adds to a block of zeros, with the fewest pairs and with the most."""
    points = pairs.series(kept("pairs"))["mse"]
    (fewest, few), (most, many) = points[0], points[-1]
    said = [f"{mean:+.1f} ± {(high - low) / 2:.1f}".replace("-", "−") for mean, low, high in (few, many)]
    return {"fewest": f"{fewest:,}", "most": f"{most:,}", "few": said[0], "many": said[1]}


def how_many() -> str:
    """Accuracy over the number of pairs, which is no table of the paper."""
    said = (
        "Not a table of the paper, which has 300,000 pairs, and 50,000 in Table 5. Hosts and targets of 100 steps "
        "each; otherwise as above. *Cosine* is the mean cosine between what feeds any two hidden channels of a written "
        "block, *silent* the share of hidden channels that are zero on 256 images."
    )
    return "\n".join([wrapped(said), pairs.table(kept("pairs")), "", *setting("pairs"), SAID.get("pairs", "")])


def family(what: str, row: dict[str, Any] | None, method: str, translator: str) -> str:
    other = "yes" if takes(translator, "attention") else "no"
    if row is None:
        return f"| {what} | not run | | | | {other} |"
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
    return {row["name"]: row for row in document(name).get("runs", [])}


def document(name: str) -> dict[str, Any]:
    """All that is kept of an experiment; empty where it was not run."""
    path = KEPT / f"{name}.json"
    content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return content


def section(name: str, title: str, lines: list[Line]) -> str:
    """One experiment: the paper's numbers beside the measured ones, its figure, and what is to be said of it."""
    runs = kept(name)
    table = [
        f"| {what} | {paper} | {measured(runs.get(run), column)} | {less(runs.get(run), column)} | "
        f"{best(runs.get(run), column)} |"
        for what, paper, run, column in lines
    ]
    head = ["| | paper | measured | less zero block | best of all |", "| --- | --- | --- | --- | --- |"]
    figure = [f"![{title}](results/paper/{name}.svg)", ""] if (KEPT / f"{name}.svg").exists() else []
    said = [SAID[name], ""] if name in SAID and runs else []
    return "\n".join([*head, *table, "", *figure, *setting(name), *said])


def measured(row: dict[str, Any] | None, column: str) -> str:
    if row is None:
        return "not run"
    _, [[cell]] = cells([{**row, "values": {}}], [column])
    return cell


def less(row: dict[str, Any] | None, column: str) -> str:
    """Of translated blocks: what they add to the zero block, host by host."""
    lost = row and row["methods"].get("zero_block", {}).get("difference")
    if not lost or column != "translated":
        return ""
    low, high = lost["ci95"]
    return f"{-lost['mean']:+.1f} ± {(high - low) / 2:.1f}"


def best(row: dict[str, Any] | None, column: str) -> str:
    """The paper's way, for translated blocks."""
    peeked = row and row.get("paper_way")
    return f"{peeked['best']:.1f}" if peeked and column == "translated" else ""


def setting(name: str) -> list[str]:
    """Which scale, how many hosts, on what, how long, and between which bounds the translators stand."""
    content, rows = document(name), list(kept(name).values())
    if not rows:
        return ["Not run yet.", ""]
    first, seconds = rows[0], sum(row["seconds"].get("training", 0.0) for row in rows)
    hosts = ", ".join(f"{count} {role}" for role, count in first["zoo"].items())
    bounds = [
        f"{what} {measured(first, column)}"
        for what, column in (("trained target", "trained_target"), ("zero block", "zero_block"))
        if column in first["methods"] and first["zoo"]["report"] >= FEW
    ]
    epochs = (first["training"] or {}).get("epochs")
    length = "no epoch" if epochs is None else "1 epoch" if epochs == 1 else f"{epochs} epochs"
    return [
        f"Scale {content['scale']}, on {content['machine']}; hosts of the first run: {hosts}; {length}; "
        f"{seconds:.0f} s of translator training in all.{''.join(f' {bound.capitalize()}.' for bound in bounds)}",
        "",
    ]


if __name__ == "__main__":
    main()
