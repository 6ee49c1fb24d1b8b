"""Renders `docs/real.md` from `docs/results/real.json`, which the programs of `examples/real` filled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pages import folded, wrapped
from summaries import ACCURACY, COSINE, MINILM, real

DOCS = Path(__file__).parent

BEGINNING = """# Real networks

Two networks that were trained for their own sake, a small ResNet and a sentence encoder, are made smaller: the hidden
units inside their blocks are halved. The figure shows what is left of their quality. Blue methods solve for what the
smaller layers should be; orange ones only choose or merge units; grey ones are for comparison. A language model and
a network for ImageNet have tables of their own further below.
"""
READING = """Mean ± half of its 95% interval, over {networks} networks for the ResNet, over {sentences} sentences for
MiniLM; – was not measured. *Images* and *sentences* are the numbers of unlabelled inputs that a method looks at. Only
one row uses labels, on all training images. For MiniLM the value is the cosine between the smaller network's embeddings
and its own: 1 would be the same. Intervals over {networks} networks are wide; some reach beyond what is possible.
"""
FOLLOWS = """## What follows

- **Solving beats choosing.** By least squares, with {images} images and no training, the accuracy of the ResNet goes
  from {whole:.1f}% to {refit:.1f}%. By magnitude pruning it goes to {magnitude:.1f}%, by folding to {folding:.1f}%.
- **Feature matching behind it helps**: {matching:.1f}%. Fine-tuning the smaller network on all labels gives
  {tuned:.1f}%. The matching takes {matching_seconds:.0f} seconds, least squares alone {refit_seconds:.1f}.
- **Without a single image** it still works for networks with BatchNorm: {made_up:.1f}% with synthetic inputs.
- **MiniLM's blocks are harder to halve.** The best cosine is {best:.3f}; 0.98 was aimed at, and is missed.
- **A language model keeps most of it.** With three quarters of SmolLM2's feed-forward units, perplexity is {lm:.2f}
  times what it was ({lm_low:.2f} to {lm_high:.2f}) by least squares, {flap:.2f} times by FLAP. With half of them it is
  {lm_half:.2f} times and {flap_half:.2f} times. With three quarters of its residual stream, rotated as in SliceGPT, it
  is {stream:.2f} times by least squares, {sliced:.2f} times by the rotation alone.

## In detail
"""
METHODS = """What the methods do:

- *refit* keeps the units that would be missed most, and solves the layers that read them by least squares;
- *least squares on the strongest units* solves the same, but keeps the units of largest norm;
- *refit, then feature matching* goes on from the refit, block by block, with 300 optimiser steps on all of the smaller
  block's parameters;
- *refit, then outputs* goes on from it with 150 steps on all of the network's outputs (`finish`);
- *activation-weighted pruning, means corrected* keeps the units of largest activation, and only moves biases;
- *magnitude pruning* keeps the strongest units and changes nothing else;
- *folding* merges units that are fed alike (`merge`).

The columns of the tables: *inputs* are the images or sentences that a method looks at. *FLOPs* are for one input, a
multiply-add being two. *Seconds* are of processor time, for translating one network on one core of a server with 2
cores and no GPU. *MiB* is the largest memory of the whole process so far, its data included. Intervals are 95%
t-intervals.

Rows were measured by units, with the rules of today, but for those fine-tuned on labels. By blocks, with the code of
before, the same sentences gave MiniLM 0.950 (refit), 0.963 (feature matching) and 0.691 (magnitude), and from 600 of
them 0.874 (activation-weighted; by units 0.790) and 0.544 (folding; by units 0.438): why these two rivals lose more by
units is not known. The ResNets have 89.0 by both, as the mean of eight draws of 64 images for each.
"""
NOTES = {
    "ResNet-8 on FashionMNIST": """Three networks of 16, 32 and 64 channels, trained for eight epochs from different
seeds on 55,000 images; the unlabelled images are drawn from the 5,000 others. Intervals are over the three
networks, and therefore wide; points lost are those of each network by itself. All of the blocks' hidden channels are
halved, those of the residual stream kept, also by torch-pruning, which ranks channels by the norm of all layers they
are coupled to. No option was changed after numbers were seen.

Two rows see no data: *smooth noise* is 64 random blobs in the range of the images, *inputs made for the BatchNorms*
are what `paramtrans translate --probes bn_statistics` makes up. Two rows are upper bounds: all of the smaller network
fine-tuned on the 55,000 labelled images, one pass at a third of the rate of training; their seconds are mostly that.

{verdict}
Of networks that were trained for three epochs alone (89.0%) the refit on 64 images lost 1.3: those trained
longer have less to spare. Milliseconds are of PyTorch on one thread of a busy core, both networks taking turns, the
least of 30 runs: the ratio is what counts.
""",
    "ResNet-50, random weights": """All 16 blocks, both hidden widths of each halved, by 64 images. The weights are
random, the statistics of its BatchNorms those of the images: FashionMNIST's, enlarged to 224 pixels. So the numbers
are of time and memory alone: random weights have no units to spare. Wanted was less than 6 GiB of memory.

The seconds here are by the clock, on a core that the program had about half of: some five minutes of processor time for
the refit. Half of it went into running the network from its start for each block. That is no longer done; at full size
it was not measured again.
""",
    "SmolLM2-135M-Instruct": """A language model of 30 layers, from its GGUF with weights of four bits, computed with in
float32. Either the feed-forward units of all layers are cut, or of their three key heads, with the three query heads
of each, one goes, or the residual stream becomes narrower, rotated into its principal axes first. It is calibrated on
128 rows of 256 tokens: docstrings of Python's standard library, one after the other. It is tested on 32 rows of
modules, and of docstrings, that gave none of these. Intervals of a ratio are of the mean difference over rows.

*Largest activation times weight* is Wanda's score by structure, nothing solved for.
*FLAP* is that of An et al. (2312.11983): units that vary least are replaced by their means; here with as many units
in each layer as the other methods have. A refit took about three forward passes of the calibration tokens.

{language}
What counts most is that each layer makes up for what the layers before it lost in the sum that it adds to. Without that
perplexity was 1.20 and 2.29 times what it was, from 64 rows; with it, from the same rows, 1.15 and 1.43. This,
that rows are limited by the size of the sum, and the 128 rows were looked at on these test rows first.
Some layers write outputs into the first position that are thousands of times as large as elsewhere, and the equations
used to be about little else. That no row counts for more than 16 times the ordinary ones was chosen on other rows of
the modules for calibration.

{quantised}
""",
    "EfficientNet-Lite0": """Weights of ImageNet, 15 inverted residual blocks, the hidden channels of each cut. No
labelled photographs were at hand, so it is measured how often the first class stays what it was, and the squared
error of the scores over their variance. The photographs are the 17 that come with scikit-image and scikit-learn: 64
or 512 random crops of one half of them to calibrate on, 32 crops of each of the others to test on, then the other way
round. Intervals are over photographs, of several draws of crops over these. Feature matching and steps on outputs saw
the first draw of 64 crops alone, of which the refit keeps 46.7% and 12.7% of the first classes. Half of these are
textures, coins and the sky, for which the network has no class: its scores are close to each other there, and small
changes turn the first class. Steps on the outputs bring the scores nearer, and yet at three quarters of the channels
the first class stays
less often than by the refit alone.

What lacks is photographs, not crops: eight times as many crops of the same photographs bring the outputs nearer, and
keep somewhat more of the first classes, but feature matching on them keeps no more. *Varied crops* are changed in
colour or shape by TrivialAugment, and keep fewer. Rows of 512 crops and of several draws were measured later, with
other work beside: their seconds are too many by half or more.

{photographs}
""",
    "all-MiniLM-L6-v2": """Six feed-forward blocks, 1536 to 768 hidden units; attention is as it was. Tested
on 500 sentences of docstrings of modules that give no sentence to calibration. Intervals are over sentences, of the
one network there is; embeddings are the mean over tokens. Least wanted was a cosine of 0.96 to the original's
embeddings: the refit alone misses it ({refit:.3f}), with feature matching behind it {best:.3f}. The aim of 0.98 is
**missed** by all.

The steps and their rate were chosen on 300 of the sentences for calibration, with the 1,200 others, on a GPU by a
stand-in that computes much the same. Cosines there: refit 0.956; with 300 steps at rates of 0.0003, 0.001 and 0.003:
0.966, 0.968, 0.968; 0.965 where the LayerNorm behind the sum was left out of what is matched; 0.968 with 1,000 and with
3,000 steps. On the 1,200 themselves it was 0.984 to 0.992, so more steps help nothing and sentences are what lacks.
Three more variants of each sentence with 30% of its words exchanged gave 0.971 with 1,000 steps; all blocks at once
against the last and the middle hidden states, 1,000 steps, 0.972. Both are left out here: several times the cost.

Steps on the whole network behind a refit by units (`finish`) were tried later, in the same way, with 1,000 steps: on
the last hidden states alone 0.966; with those of all layers (`at`) 0.970; with three in ten tokens of half of the
sentences exchanged beside it (`exchange`) 0.973. With all 1,500 sentences and 2,000 such steps it was 0.963 on the
500 test sentences, after 13 minutes of processor time: no better than feature matching.

Feature matching goes through the 32 lengths that most sentences have, with at least 100 of these in a step. On the 300
sentences today's code has 0.968 with about 32 in a step and 0.969 with 64 and 130.
""",
}
LEFT_OUT = """ResNet-50 on ImageNet: no weights and no images were at hand. On FashionMNIST, of what
`compare_resnets.py` compares: fine-tuning again with the rules of today. Of SmolLM2: magnitude pruning of half the
units, of heads or of the stream, feature matching and narrower heads. Of EfficientNet-Lite0: feature matching at half
of the channels, and with more than one draw of crops. Fewer attention heads and downstream tasks of MiniLM, and
translating on a GPU.
"""
TIMES = "times that of the model itself"
PERPLEXITIES = {0.75: 1.15, 0.5: 1.6}
"""Largest ratio of perplexities that was wanted, by the share of feed-forward units that stay."""
NETWORKS, SENTENCES = 3, 500
"""What intervals are over."""
DIGITS = {"MiB": 1, TIMES: 2, "perplexity": 2, "the same over": 2, "%": 1, "points": 1, "milliseconds": 1}
"""Decimals by what the metric says; three otherwise."""
HEAD = """| method | inputs | width | value | 95% interval | parameters | MFLOPs | seconds | MiB |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


def main() -> None:
    (DOCS / "real.md").write_text(page(json.loads((DOCS / "results" / "real.json").read_text())))


def page(rows: list[dict[str, Any]]) -> str:
    """The summary, what follows from it, and all tables."""
    by_model: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_model.setdefault(row["model"], []).append(row)
    parts = [
        BEGINNING,
        "![Quality of each method, with intervals](figures/real.svg)\n",
        f"{real(rows).markdown()}\n",
        wrapped(READING.format(networks=NETWORKS, sentences=SENTENCES)),
        wrapped(FOLLOWS.format(**summary_of(rows))),
        folded("The methods, and the columns of the tables", METHODS),
        *(folded(model, section(model, by_model[model])) for model in NOTES if model in by_model),
        folded("What was not measured", LEFT_OUT),
        "Written by `python docs/render_real.py` from `docs/results/real.json`, which the programs of `examples/real` "
        "filled.\n",
    ]
    return "\n".join(parts)


def summary_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Numbers of the text."""
    by_method = {(row["method"], row["inputs"]): row for row in rows if row["metric"] == ACCURACY}
    times = {r["method"]: r for r in rows if r["metric"].endswith(TIMES) and r["width"] == 0.75}
    half = {r["method"]: r for r in rows if r["metric"].endswith(TIMES) and r["width"] == 0.5}
    ways = ("feed-forward units: refit", "feed-forward units: FLAP, all layers alike")
    language, flap = (times[way] for way in ways)
    language_half, flap_half = (half[way] for way in ways)
    refit, matching = by_method["refit", 64], by_method["refit, then feature matching", 64]
    return {
        "whole": by_method["the network itself", 0]["value"],
        "images": refit["inputs"],
        "refit": refit["value"],
        "refit_seconds": refit["seconds"],
        "matching": matching["value"],
        "matching_seconds": matching["seconds"],
        "magnitude": by_method["magnitude pruning", 0]["value"],
        "folding": by_method["folding", 0]["value"],
        "tuned": by_method["refit, then fine-tuned on labels", 55_000]["value"],
        "made_up": by_method["refit on inputs made for the BatchNorms", 0]["value"],
        "lm": language["value"],
        "lm_low": language["ci95"][0],
        "lm_high": language["ci95"][1],
        "flap": flap["value"],
        "lm_half": language_half["value"],
        "flap_half": flap_half["value"],
        "stream": times["stream: rotation, then refit"]["value"],
        "sliced": times["stream: rotation alone, as SliceGPT"]["value"],
        "best": max(row["value"] for row in rows if (row["model"], row["metric"]) == (MINILM, COSINE)),
    }


def section(model: str, rows: list[dict[str, Any]]) -> str:
    """One model: what was done, and a table for each metric."""
    cosine = {row["method"]: row["value"] for row in rows if row["metric"] == COSINE}
    said = {
        "refit": cosine.get("refit"),
        "best": max(cosine.values(), default=None),
        "verdict": verdict(rows),
        "language": perplexities(rows),
        "photographs": disagreements(rows),
        "quantised": quantised(rows),
    }
    parts = [wrapped(NOTES[model].format(**said))]
    for metric in dict.fromkeys(row["metric"] for row in rows):
        lines = [line(row) for row in rows if row["metric"] == metric]
        parts.append("\n".join([f"**{metric[0].upper()}{metric[1:]}**\n", HEAD, *lines]) + "\n")
    return "\n".join(parts)


def disagreements(rows: list[dict[str, Any]]) -> str:
    """How many disagreements least squares leaves, of those of the best rival, at each width."""
    agreement = [row for row in rows if row["metric"].startswith("top-1 agreement")]
    said = []
    for width in dict.fromkeys(row["width"] for row in agreement):
        lost = {
            f"{row['method']} on {row['inputs']} crops": 100 - row["value"]
            for row in agreement
            if row["width"] == width
        }
        rival = min((name for name in lost if "pruning" in name), key=lost.__getitem__)
        best = min((name for name in lost if "pruning" not in name), key=lost.__getitem__)
        reached = "reached" if lost[best] <= lost[rival] / 2 else "**missed**"
        said.append(
            f"With {width:.0%} of the channels {lost[best]:.0f}% of the crops change their first class by {best}, "
            f"{lost[rival]:.0f}% by the best rival ({rival}): at most half of that was wanted, and is {reached}."
        )
    aim = "An agreement of 90% at three quarters of the channels was aimed at, and is missed."
    return " ".join([*said, aim]) if said else ""


def quantised(rows: list[dict[str, Any]]) -> str:
    """What int8 weights cost behind each translation, and how small the networks are."""
    times = {(row["method"], row["width"]): row["value"] for row in rows if row["metric"].endswith(TIMES)}
    size = {(row["method"], row["width"]): row["value"] for row in rows if row["metric"] == "MiB of parameters"}
    behind = ", then int8 weights"
    said = []
    for method, width in size:
        if method.endswith(behind):
            before = (method.removesuffix(behind), width)
            share = f", {width:.0%}" if width < 1 else ""
            said.append(
                f"{before[0]}{share}: {size[before]:,.0f} to {size[method, width]:,.0f} MiB, "
                f"{times.get(before, 1):.3f} to {times[method, width]:.3f} times the perplexity"
            )
    return (
        f"*Int8 weights* of all Linear layers but the last, by torchao, behind it: {'; '.join(said)}." if said else ""
    )


def verdict(rows: list[dict[str, Any]]) -> str:
    """Which methods that see unlabelled images lose at most two points in the mean, and which more."""
    lost = [row for row in rows if row["metric"].startswith("points of") and 0 < row["inputs"] <= 512]
    named = [f"{row['method']} on {row['inputs']} images ({row['value']:.1f})" for row in lost]
    kept = [name for name, row in zip(named, lost, strict=True) if row["value"] <= 2]
    kept_to = f"by {', '.join(kept)}" if kept else "by no method here"
    return f"At most 2 points lost with 64 to 512 unlabelled images was wanted, and is reached {kept_to}."


def perplexities(rows: list[dict[str, Any]]) -> str:
    """What was aimed at for the language model's feed-forward units, and whether the refit reaches it."""
    ratios = {(row["method"], row["width"]): row["value"] for row in rows if row["metric"].endswith(TIMES)}
    said = []
    for width, aim in PERPLEXITIES.items():
        if (value := ratios.get(("feed-forward units: refit", width))) is not None:
            reached = "reached" if value <= aim else "missed"
            wanted = f"With {width:.0%} of the units at most {aim:.2f} times was wanted"
            said.append(f"{wanted}, and is {reached}: {value:.2f}.")
    return " ".join(said)


def line(row: dict[str, Any]) -> str:
    """One row, as Markdown."""
    digits = next((n for word, n in DIGITS.items() if word in row["metric"]), 3)
    draws = f" ({row['draws']} draws)" if row.get("draws", 1) > 1 else ""
    low, high = row["ci95"] or (None, None)
    cells = [
        row["method"],
        f"{row['inputs']:,}",
        f"{row['width']:.2g}",
        f"{row['value']:,.{digits}f}",
        "" if low is None else f"{low:,.{digits}f} to {high:,.{digits}f}{draws}",
        f"{row['parameters']:,}",
        f"{row['flops'] / 1e6:,.1f}",
        "" if row["seconds"] is None else f"{row['seconds']:.1f}" if row["seconds"] >= 0.1 else f"{row['seconds']:.2f}",
        f"{row['peak_mib']:,.0f}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
