"""What translating a network costs, in forward passes of the same inputs.

python -m benchmarks.translation [--images 64] [--side 224] [--only NAME ...] [--out FILE]

Parameters are random, inputs too: time and memory are those of trained networks, what is lost is not. The first
network is translated by one process with all threads, by one with one thread, and by two with one thread each.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import paramtrans
from benchmarks import machine
from paramtrans.utils import memory
from paramtrans.utils.distributed import process_group

BATCH = 8
WAYS = {"": (1, None), "one thread": (1, 1), "two processes, one thread each": (2, 1)}
"""How the first network is translated: processes, and threads of each (None: one for each core)."""


def resnet50() -> nn.Module:
    from torchvision.models import resnet50 as build

    torch.manual_seed(0)
    network: nn.Module = build()
    return network.eval()


def vit() -> nn.Module:
    from torchvision.models import vit_b_16

    torch.manual_seed(0)
    network: nn.Module = vit_b_16()
    return network.eval()


NETWORKS: dict[str, Callable[[], nn.Module]] = {"ResNet-50": resnet50, "ViT-B/16": vit}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.translation", description=__doc__)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--side", type=int, default=224, help="of the images, in pixels")
    parser.add_argument("--only", nargs="*", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--row", choices=NETWORKS, help="one row alone, printed; each is measured so, for its memory")
    parser.add_argument("--out", type=Path, default=Path("docs/results/scale_translation.json"))
    options = parser.parse_args()
    if options.row:
        row = measured(options.row, options.images, options.side)
        if process_group().leads:
            print(json.dumps(row), flush=True)
        return
    rows = [
        _in_processes_of_its_own(name, options.images, options.side, way)
        for name in options.only
        for way in (WAYS if name == next(iter(NETWORKS)) else ("",))
    ]
    text = (
        f"{options.images} images of {options.side}² values, half of the hidden units of each group stay, least "
        "squares (`refit`), random parameters. A forward pass is one of the same images in batches of "
        f"{BATCH}, in the same process just before. Memory is the largest that the process held. Freed memory is kept "
        "in one pool, as by the command line. Written by "
        f"`python -m benchmarks.translation`. Measured on {machine.words()}."
    )
    options.out.write_text(json.dumps({"title": "Translation", "text": text, "rows": rows}, indent=1) + "\n")


def _in_processes_of_its_own(name: str, images: int, side: int, way: str) -> dict[str, Any]:
    processes, threads = WAYS[way]
    launched = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launched if processes > 1 else []), "-m", "benchmarks.translation", "--row", name]
    env = {**os.environ, memory.ONE: "1"} | ({} if threads is None else {"OMP_NUM_THREADS": str(threads)})
    numbers = ["--images", str(images), "--side", str(side)]
    finished = subprocess.run([*command, *numbers], stdout=subprocess.PIPE, text=True, check=True, env=env)
    print(finished.stdout, end="", flush=True)
    row: dict[str, Any] = json.loads(finished.stdout)
    return {**row, "network": f"{name}, {way}" if way else name}


def measured(name: str, images: int, side: int) -> dict[str, Any]:
    """One translation, beside a forward pass."""
    network = NETWORKS[name]()
    generator = torch.Generator().manual_seed(0)
    batches = torch.randn(images, 3, side, side, generator=generator).split(BATCH)
    forward(network, batches[:1])
    forward_seconds = forward(network, batches)
    started = time.perf_counter()
    paramtrans.translate(network, ratio=0.5, calibrate=batches, distributed=True)
    seconds = time.perf_counter() - started
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "network": name,
        "forward passes": f"{seconds / forward_seconds:.1f}",
        "seconds": f"{seconds:.0f}",
        "a forward pass": f"{forward_seconds:.1f} s",
        "memory": f"{held / 1e9:.2f} GB",
    }


@torch.no_grad()
def forward(network: nn.Module, batches: Sequence[Tensor]) -> float:
    """Seconds of one pass of all batches."""
    started = time.perf_counter()
    for batch in batches:
        network(batch)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
