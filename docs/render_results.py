"""Renders `docs/results.md` from what finished runs wrote.

    python docs/render_results.py runs/mnist_conv_to_attn runs/mnist_conv_to_conv runs/mnist_conv_to_mlp

Their `evaluation.json` and times are copied to `docs/results/`; without arguments the page is rendered from there.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from paramtrans.api.records import Evaluation
from paramtrans.report.findings import headline, markdown_table
from paramtrans.report.html import break_even
from paramtrans.utils.progress import duration

DOCS = Path(__file__).parent
KEPT = DOCS / "results"

INTRODUCTION = """# What was measured

Written by `python docs/render_results.py`, not by hand. Every run below is `paramtrans run examples/<name>.toml`, on
2 cores of a server without a GPU. Hosts follow a light protocol (100 steps of batch 128, with the paper's random
flips), so these figures stand beside each other, not beside the paper's. The run to attention was alone on the machine;
those to conv and to MLP took its zoo and had other work beside them, so that their times are several times too long.
Selection used other hosts than those reported, and images held out of training; the reported accuracies are over all
10,000 test images, the intervals 95% t-intervals over hosts. One translator seed.
"""


def main(folders: list[str]) -> None:
    KEPT.mkdir(exist_ok=True)
    for folder in map(Path, folders):
        run = json.loads((folder / "run.json").read_text())
        evaluation = json.loads((folder / "evaluation.json").read_text())
        kept = {"seconds": run["seconds"], "versions": run["versions"], **evaluation}
        (KEPT / f"{run['name']}.json").write_text(json.dumps(kept, indent=1) + "\n")
    (DOCS / "results.md").write_text(page())


def page() -> str:
    """All runs, one after the other."""
    runs = {path.stem: json.loads(path.read_text()) for path in sorted(KEPT.glob("mnist_*.json"))}
    return "\n".join([INTRODUCTION, *(section(name, result) for name, result in runs.items())])


def section(name: str, result: dict[str, Any]) -> str:
    """One run: its finding, the table, what the smaller block costs, and the time it took."""
    source, target = result["blocks"]["source"], result["blocks"]["target"]
    stages = ", ".join(f"{stage.replace('_', ' ')} {duration(took)}" for stage, took in result["seconds"].items())
    hosts = ", ".join(f"{count} {role}" for role, count in result["zoo"].items())
    sizes = (
        f"Block: {source['parameters']} → {target['parameters']} parameters, "
        f"{source['flops']:,} → {target['flops']:,} FLOPs. "
        f"Translator: `{result['translator']['name']}`, {result['translator']['parameters']:,} parameters. "
        f"Hosts: {hosts}."
    )
    evaluation = Evaluation.model_validate(result)
    pays = break_even(evaluation.break_even)
    times = f"{pays} Stages: {stages} (a stage that found its zoo done took almost none)."
    said, table = " ".join(headline(evaluation)), markdown_table(evaluation)
    return "\n\n".join([f"## {name}", said, table, sizes, times, ""])


if __name__ == "__main__":
    main(sys.argv[1:])
