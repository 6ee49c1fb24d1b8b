"""Put what finished runs of the squared error of parameters found into docs/exchangeable.md, and the numbers beside it.

    python docs/render_exchangeable.py runs/fig4/attention runs/fig6/small …

Without arguments the page is rendered from docs/results/exchangeable.json. Runs trained on anything else are left out.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
KEPT, PAGE = DOCS / "results" / "exchangeable.json", DOCS / "exchangeable.md"

INTRODUCTION = """# Why squared error of parameters is stuck

Written by `python docs/render_exchangeable.py`, from runs of `examples/paper/*.toml` at scale `small` (light protocol:
200 steps of batch 128, one-cycle to 0.1), whose translators were trained on the trained targets' parameters alone.

Given the source, the hidden channels of its trained targets are exchangeable: they began as independent draws, and SGD
does not tell them apart. The best prediction in squared error is then the same channel several times. *Cosine* is the
mean cosine between what feeds any two hidden channels of a predicted block (`paramtrans diagnose RUN`); in trained
targets it is {trained:.2f}. *Silent* is the share of hidden channels that are zero on 256 images. Means are over
{hosts} report hosts, where the zero block has {zero:.1f}%, and the trained target {top:.1f}%. One seed each.

"""
END = """
The translators that fit single pairs least write nearly one channel, most of it dead: the zero block, and its accuracy.
Those that fit them more write different channels, but by heart: the training loss falls, and the accuracy on hosts
that they have not seen with it. So the argument holds; neither less fitting nor more is a way out. `functional` asks
what the block computes and has no such tie ([quality](quality.md)); `matching_mse` takes the best order of the units.
`examples/quality/exchangeable.toml` compares them; it has not been run at full size.
"""


def main(folders: list[str]) -> None:
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for folder in map(Path, folders):
        run, evaluation = (json.loads((folder / name).read_text()) for name in ("run.json", "evaluation.json"))
        if all(part["name"].endswith("mse") for part in run["config"]["objectives"]):
            kept["/".join(folder.parts[-2:])] = row_of(run["config"], evaluation)
    KEPT.write_text(json.dumps(dict(sorted(kept.items())), indent=1) + "\n")
    PAGE.write_text(page(kept))


def row_of(config: dict[str, Any], evaluation: dict[str, Any]) -> dict[str, Any]:
    """How alike the hidden units are that such a translator writes, and what the blocks are worth."""
    diagnosis, methods = evaluation["diagnosis"]["methods"], evaluation["methods"]
    return {
        "translator": config["translator"]["name"],
        "layers": config["translator"].get("layers"),
        "dropout": config["translator"].get("dropout", 0.0),
        "pairs": evaluation["zoo"]["train"],
        "epochs": config["training"]["epochs"],
        "loss": evaluation["training"]["loss"],
        "unit_cosine": diagnosis["translated"]["unit_cosine"],
        "silent_units": diagnosis["translated"]["silent_units"],
        "trained_cosine": diagnosis["trained_target"]["unit_cosine"],
        "report_hosts": methods["translated"]["n"],
        "mean": methods["translated"]["mean"],
        "ci95": methods["translated"]["ci95"],
        "zero_block": methods["zero_block"]["mean"],
        "trained_target": methods["trained_target"]["mean"],
    }


def page(kept: dict[str, dict[str, Any]]) -> str:
    rows = sorted(kept.items(), key=lambda item: -item[1]["unit_cosine"])
    first = rows[0][1]
    lines = [
        "| run | translator | dropout | pairs | epochs | training loss | cosine | silent | mean % | 95% interval |",
        "| --- " * 10 + "|",
    ]
    for name, row in rows:
        low, high = row["ci95"]
        cells = [name, f"{row['translator']}, {row['layers']} layers", f"{row['dropout']:g}", str(row["pairs"])]
        cells += [
            str(row["epochs"]),
            f"{row['loss']:.3f}",
            f"{row['unit_cosine']:.2f}",
            f"{100 * row['silent_units']:.0f}%",
        ]
        cells += [f"{row['mean']:.1f}", f"{low:.1f} – {high:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    said = INTRODUCTION.format(
        trained=first["trained_cosine"],
        hosts=first["report_hosts"],
        zero=first["zero_block"],
        top=first["trained_target"],
    )
    return said + "\n".join(lines) + "\n" + END


if __name__ == "__main__":
    main(sys.argv[1:])
