"""Measures every row of the table, prints it, and writes it as JSON and as a page.

python -m benchmarks [--quick | --pico] [--device DEVICE] [--only NAME ...] [--out FILE]

On a GPU, which is taken where there is one, results go to a file of their own.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks import evaluating, machine, mixer, protocol, reading, zoo
from benchmarks.setting import FULL, PICO, QUICK, Setting
from benchmarks.turns import Row

GROUPS: dict[str, Callable[[Setting], list[Row]]] = {
    "zoo": zoo.rows,
    "reading": reading.rows,
    "mixer": mixer.rows,
    "evaluating": evaluating.rows,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: under five minutes")
    parser.add_argument("--pico", action="store_true", help="one tiny round, to see that everything runs")
    parser.add_argument("--only", nargs="*", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="docs/results/benchmarks.json, or benchmarks_gpu.json")
    options = parser.parse_args()
    setting = Setting(PICO if options.pico else QUICK if options.quick else FULL, options.device)
    options.out = options.out or Path(f"docs/results/benchmarks{'_gpu' if setting.on_gpu else ''}.json")
    rows: list[Row] = []
    for name in options.only:
        for row in GROUPS[name](setting):
            rows.append(replace(row, device=machine.words(options.device)))
            print(f"{row.name:46} {row.ratio:7.2f}× ± {row.spread / 2:.2f}   against {row.against}", flush=True)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps([row.as_dict() for row in rows], indent=1, ensure_ascii=False) + "\n")
    if setting.on_gpu and "zoo" in options.only:
        protocol.write(rows, options.out.with_name("scale_paper_pairs.json"))


if __name__ == "__main__":
    main()
