"""A store of many pairs in the zoo's format: written, opened, checked, streamed and drawn from at random.

    python -m benchmarks.store_scale [--pairs 300000] [--folder FOLDER] [--out FILE]

Parameters are random numbers; shapes, files and records are those of the paper's zoo. The folder is deleted afterwards.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import machine
from benchmarks.reading import write_shard
from benchmarks.setting import PICO, Setting
from paramtrans.api.hosts import Hosts
from paramtrans.storage.shards import Shards

BATCH = 4096


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.store_scale", description=__doc__)
    parser.add_argument("--pairs", type=int, default=300_000)
    parser.add_argument("--shard", type=int, default=16, help="hosts in a file; `zoo.shard`")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/results/scale_store.json"))
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        rows = measure(folder, options.pairs, options.shard)
    finally:
        shutil.rmtree(folder)
    text = (
        f"{options.pairs:,} pairs with former and latter, random parameters in the real format, {options.shard} hosts "
        "a file, a record with checksum beside each. Written by `python -m benchmarks.store_scale`. Memory is what "
        "the process holds when each is done, without files mapped into it, where the system tells. "
        f"Measured on {machine.words()}."
    )
    options.out.write_text(json.dumps({"title": "A large store", "text": text, "rows": rows}, indent=1) + "\n")


def measure(folder: Path, pairs: int, shard: int) -> list[dict[str, Any]]:
    """Seconds, and memory at the end, of each thing done to the store."""
    hosts = Setting(PICO).hosts(shard)
    paths: list[tuple[Path, Path]] = []
    readers: list[Shards] = []

    def write() -> None:
        generator = torch.Generator().manual_seed(0)
        for number in range(pairs // shard):
            paths.append(write_shard(folder, _other(hosts, generator), number))

    def open_() -> None:
        readers[:] = [Shards([hosts for hosts, _ in paths]), Shards([target for _, target in paths])]

    def check() -> None:
        for reader in readers:
            reader.check()

    def stream() -> None:
        for reader in readers:
            assert sum(len(next(iter(piece.values()))) for piece in reader.one_pass(BATCH)) == len(reader)

    def draw() -> None:
        blocks = [Shards([hosts for hosts, _ in paths], ("source.",)), readers[1]]
        for chosen in torch.randperm(len(blocks[0])).split(BATCH):
            for reader in blocks:
                reader.take(chosen)

    actions = {
        "write": write,
        "open": open_,
        "check all checksums": check,
        "one pass over whole hosts and targets": stream,
        f"one pass over pairs in random batches of {BATCH:,}": draw,
    }
    rows = [_row(name, action) for name, action in actions.items()]
    bytes_ = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return [*rows, {"": "disk", "result": f"{bytes_ / 1e9:.2f} GB in {2 * 2 * len(paths):,} files", "memory": ""}]


def _row(name: str, action: Callable[[], None]) -> dict[str, Any]:
    started = time.perf_counter()
    action()
    row = {"": name, "result": f"{time.perf_counter() - started:.1f} s", "memory": f"{_memory() / 1e6:.0f} MB"}
    print(json.dumps(row), flush=True)
    return row


def _memory() -> int:
    """Bytes of this process that are not files mapped into it; where the system does not tell, the largest so far."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(lines["RssAnon"].split()[0]) * 1024
    except (OSError, KeyError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _other(hosts: Hosts, generator: torch.Generator) -> Hosts:
    """Random numbers in place of all parameters."""
    parts = {
        part: {name: torch.rand(tensor.shape, generator=generator) for name, tensor in params.items()}
        for part, params in hosts.parts().items()
    }
    return Hosts(parts["former"], parts["source"], parts["latter"], parts["target"], hosts.seeds, hosts.stream)


if __name__ == "__main__":
    main()
