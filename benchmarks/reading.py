"""Random batches of pairs from a zoo's shards against one file a tensor set with `torch.load`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.setting import Setting
from benchmarks.turns import Row, rate, row, take_turns
from paramtrans.api.hosts import Hosts
from paramtrans.api.stacking import Params, join, take
from paramtrans.storage import sealed_params
from paramtrans.storage.shards import Shards

SHARD, BATCH = 16, 4096


def rows(setting: Setting) -> list[Row]:
    """All pairs once, in random batches of 4,096; files of both kinds are in the system's cache."""
    count = setting.size.pairs
    pairs = setting.hosts(SHARD).to("cpu")
    with tempfile.TemporaryDirectory() as folder:
        shards = [write_shard(Path(folder), pairs, number) for number in range(count // SHARD)]
        singles = [_write_singles(Path(folder), pairs, number) for number in range(len(shards) * SHARD)]
        sources = Shards([hosts for hosts, _ in shards], ("source.",))
        targets = Shards([target for _, target in shards])
        amount = len(sources)

        def ours() -> None:
            for chosen in batches(amount):
                assert len(sources.take(chosen)["source.conv1.weight"]) == len(
                    targets.take(chosen)["target.conv1.weight"]
                )

        def theirs() -> None:
            for chosen in batches(amount):
                loaded = [[torch.load(path, weights_only=True) for path in singles[i]] for i in chosen.tolist()]
                for side in range(2):
                    {name: torch.stack([pair[side][name] for pair in loaded]) for name in loaded[0][side]}

        measured = take_turns(
            {"ours": lambda: rate(amount, ours), "theirs": lambda: rate(amount, theirs)}, setting.size.rounds
        )
    name = f"reading {amount:,} pairs in random batches of {BATCH:,}"
    return [row(name, "one file a tensor set with torch.load", "pairs/s", measured["ours"], measured["theirs"])]


def batches(count: int) -> Iterator[torch.Tensor]:
    yield from torch.randperm(count).split(BATCH)


def write_shard(folder: Path, pairs: Hosts, number: int) -> tuple[Path, Path]:
    """A zoo's files of one shard: whole hosts, and their trained targets."""
    assert pairs.target is not None
    hosts, target = folder / "hosts" / f"{number:07d}.safetensors", folder / "targets" / f"{number:07d}.safetensors"
    sealed_params.save_params(hosts, join({"former": pairs.former, "source": pairs.source, "latter": pairs.latter}), {})
    sealed_params.save_params(target, join({"target": pairs.target}), {})
    return hosts, target


def _write_singles(folder: Path, pairs: Hosts, number: int) -> tuple[Path, Path]:
    """The published layout: files of one model each."""
    assert pairs.target is not None
    paths = folder / f"source-{number}.pth", folder / f"target-{number}.pth"
    for path, params in zip(paths, (pairs.source, pairs.target), strict=True):
        torch.save(_model(params, number % SHARD), path)
    return paths


def _model(params: Params, number: int) -> Params:
    return {name: tensor[0] for name, tensor in take(params, [number]).items()}
