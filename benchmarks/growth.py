"""Cost and memory of a zoo of 1×, 4× and 16× the hosts.

python -m benchmarks.growth [--steps 20] [--hosts 16] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.setting import EXAMPLE
from paramtrans import components, config
from paramtrans.builder import Builder
from paramtrans.storage.cache import cache_dir
from paramtrans.zoo import Zoo

TIMES = (1, 4, 16)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--hosts", type=int, default=16, help="of the smallest zoo; a shard by default")
    parser.add_argument("--out", type=Path, default=Path("docs/results/scale_growth.json"))
    options = parser.parse_args()
    train(options.hosts, 1)  # compiles kernels
    rows = [train(times * options.hosts, options.steps) for times in TIMES]
    text = (
        f"Steps 1 and 2 of real zoos, written to disk, {options.steps} steps of batch 128 each. Written by "
        "`python -m benchmarks.growth`. Processor time is counted, not wall-clock, so that other work on the machine "
        "counts less; memory is the largest the process has held, which grows through the table if it grows at all. "
        f"Measured on {machine.words()}."
    )
    options.out.write_text(json.dumps({"title": "Cost and memory", "text": text, "rows": rows}, indent=1) + "\n")


def train(hosts: int, steps: int) -> dict[str, Any]:
    """Train a zoo of that many training hosts and pairs; what it cost."""
    registry = components()
    settings = [f"zoo.train={hosts}", f"zoo.pairs={hosts}", f"zoo.step1.steps={steps}", f"zoo.step2.steps={steps}"]
    document = config.override(config.read(EXAMPLE), [*settings, "run.device=cpu"])
    builder = Builder(config.validate(document, registry), registry)
    builder.task.prepare(cache_dir(None))
    with tempfile.TemporaryDirectory() as folder:
        zoo = Zoo(builder, Path(folder))
        started = time.process_time()
        for step in (1, 2):
            jobs = [job for job in zoo.missing(step) if job.role == "train"]
            cached = [job.model_copy(update={"cache": cache_dir(None)}) for job in jobs]
            builder.executor.run(cached, lambda steps: None)
        spent = time.process_time() - started
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    row = {
        "hosts": hosts,
        "processor seconds": f"{spent:.1f}",
        "seconds a host": f"{spent / hosts:.4f}",
        "memory": f"{memory / 1e6:.0f} MB",
    }
    print(json.dumps(row), flush=True)
    return row


if __name__ == "__main__":
    main()
