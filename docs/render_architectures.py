"""Renders `docs/architectures.md` from the results of `examples/real/architectures.py`."""

from __future__ import annotations

import json
from math import log
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
HEAD = """# Other architectures, measured

Written by `python docs/render_architectures.py`, not by hand; `examples/real/architectures.py` measures it. Blocks of
networks that were trained for their own sake are given to [another architecture](other-architectures.md), from
unlabelled inputs alone. *Start* is the closed form of a target, or random where it has none. *Random* is the same
network with the new blocks as PyTorch initialises them, *trained* one such network trained on all labels for eight
epochs. *Way* is the part of the way from random to trained, or to the original where nothing was trained; of
perplexities, of their logarithms. *Error* is the mean relative reconstruction error of the blocks behind feature
matching, on inputs that nothing was fitted to; *size* the parameters of the new blocks as a share of those before;
*latency* the time of the whole network on one thread, as a share of before, beside other work, so that rows of one
target differ. Intervals are 95% t-intervals, over networks or, of one network, over the inputs that it is measured on.
"""
NOT_MEASURED = """## What follows

- **Most families hold what the blocks compute.** With 512 images all basic blocks become depthwise-separable at a loss
  of 2.4 points, with 64 at one of 4.6; grouped and low-rank convolutions lose about one.
- **A bottleneck of half the channels holds less.** It loses 6.1 points with 512 images, and more steps gain little.
  With seven further copies of each image, flipped and shifted as in training, and 4,800 steps on the outputs it loses
  4.7 (5 were aimed at). Three quarters of the channels lose more than half, which is not understood. Both of these are
  of three networks that were trained anew, of 91.6%. Values weighed by how much the outputs depend on them (`weigh`)
  gained nothing, on one network: 81.3% behind feature matching with and without, 85.7% and 85.9% behind 2,400 steps on
  outputs.
- **Both are better than the same architecture trained anew** on all 55,000 labels (84.1 and 82.1), so more than the
  whole way is gone. That training was not tuned: its highest rate is a third of the original's, as these blocks have
  no BatchNorm.
- **Attention without a softmax can be had by matching blocks alone** where sequences are short: the six layers of
  MiniLM become linear attention or a state-space layer at a cosine of 0.96, with errors from 0.003 to 0.045 a layer
  with a window, where 0.2 was aimed at. Sentences have at most 48 tokens; nothing is said of long texts. The
  state-space layer takes twice the time on a processor.
- **A language model does without a softmax over all positions in half of its layers**: SmolLM2 with linear attention
  and a window of 64 in every second layer has 1.02 times its perplexity in texts of 256 tokens, from 65,536 tokens
  without labels and 150 steps a layer (16 minutes of processor time), and 1.03 times from 16,384 and 600 steps.
- **Latent attention costs SmolLM2 next to nothing**: 1.00 times its perplexity with 192 values in place of the 384 of
  keys and values, by 150 steps a layer on 65,536 tokens, 15 minutes of processor time; 1.02 times on 16,384. It has 96%
  of the parameters: what it saves is memory for earlier positions.
- **Shared keys and values of all heads** (three key heads to one) cost it seven times its perplexity in closed form
  from 16,384 tokens; behind 150 steps a layer 1.59 times, and 1.47 times from 65,536. More steps and a state-space
  layer were not measured.
- **Closed forms alone are far from enough**, but for low-rank and grouped convolutions and for shared or latent keys
  and values.
- For latent attention, matching gained nothing on inputs kept aside, so the closed form stayed.
- A mixer of convolutions, which does not look at what stands where, is the worst in place of attention.

No rival stands beside the rows. Rows of MiniLM are of one draw of sentences.
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
        trained = {row["to"]: row["trained"] for row in reversed(measured) if row["trained"] is not None}
        parts[-1] += "".join(f"\n{_line(row, trained.get(row['to']))}" for row in measured) + "\n"
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


def _line(row: dict[str, Any], trained: float | None) -> str:
    best = row["original"] if trained is None else trained
    level = log if row["metric"].startswith("perplexity") else float
    way = (level(row["value"]) - level(row["random"])) / (level(best) - level(row["random"]))
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
