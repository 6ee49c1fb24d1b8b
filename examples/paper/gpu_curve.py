"""Accuracy over the number of pairs: as many pairs of the paper's protocol as the time allows, on a GPU.

    python examples/paper/gpu_curve.py --zoo 150 --training 90 --out docs/results/paper/gpu_curve.json

Makes pairs (10 epochs of step 1, 10 of step 2, 60,000 images with flips, batch 128, SGD 0.01) shard by shard for
`--zoo` seconds, then trains Table 2's Small, Base and Large on a quarter, a half and all of them, with equally many
epochs, for about `--training` seconds in all. Nothing is selected: the last epoch is reported, on the 17 hosts of
`examples/data` and on a few of its own that no translator learned from. Products are in TF32 while translators learn;
everything else is float32. What it finds is written anew whenever there is more of it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from paramtrans import components, config
from paramtrans.api.context import Context
from paramtrans.api.hosts import Hosts
from paramtrans.api.rival import RivalCase
from paramtrans.api.stacking import join, split
from paramtrans.builder import Builder
from paramtrans.evaluation import accuracy
from paramtrans.ops import statistics
from paramtrans.storage import cache, sealed_params
from paramtrans.training.trainer import Trainer
from paramtrans.utils import seeds
from paramtrans.zoo import Zoo, do_job

BASE = Path(__file__).parent / "base.toml"
SIZES = ("small", "base", "large")
SHARES = (4, 2, 1)
"""Translators learn from all pairs divided by these."""
PER_FILE = 512
STEPS_TIMED = 4


class Curve:
    """Everything that is found, written anew whenever there is more of it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.started = options, time.monotonic()
        self.folder = Path(options.cache) if options.cache else cache.cache_dir(None)
        self.results: dict[str, Any] = {"device": _device(), "points": []}

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.started:6.1f} s] {text}", flush=True)

    def write(self) -> None:
        self.options.out.parent.mkdir(parents=True, exist_ok=True)
        self.options.out.write_text(json.dumps(self.results, indent=1) + "\n")

    def builder(self, pairs: int, *further: str) -> Builder:
        registry = components()
        settings = ["scale=full", "task.holdout=0", f"zoo.train={pairs}", f"zoo.shard={self.options.shard}"]
        settings += ["zoo.select=1", "zoo.report=17", "zoo.report_from=../data/paper_hosts.safetensors"]
        return Builder(config.load(BASE, registry, [*settings, *self.options.set, *further]), registry)

    def make_pairs(self) -> int:
        """Shards until the time is over, but one at least; returns the number of pairs there are now."""
        zoo = Zoo(self.builder(self.options.most), self.folder)
        todo = [{job.start: job for job in zoo.missing(step) if job.role == "train"} for step in (1, 2)]
        begun, seconds = time.monotonic(), [0.0, 0.0]
        there = self.options.most - sum(job.stop - job.start for job in todo[1].values())
        pairs_made, longest = 0, 0.0
        for start, job in todo[1].items():
            before = time.monotonic()
            if pairs_made and before - begun + longest > self.options.zoo:
                break
            for number, part in enumerate((todo[0].get(start), job)):
                if part is not None:
                    part_begun = time.monotonic()
                    do_job(part, lambda steps: None)
                    seconds[number] += time.monotonic() - part_begun
            longest = max(longest, time.monotonic() - before)
            pairs_made += job.stop - start
            self.results["zoo"] = {
                "pairs": there + pairs_made,
                "made": pairs_made,
                "seconds": round(sum(seconds), 1),
                "seconds of step 1": round(seconds[0], 1),
                "seconds of step 2": round(seconds[1], 1),
                "hosts at once": self.options.shard,
            }
            self.say(f"{pairs_made} pairs made")
            self.write()
        return there + pairs_made

    def run(self) -> None:
        total = self.make_pairs()
        whole = Zoo(builder := self.builder(total), self.folder)
        builder.task.prepare(self.folder)
        hosts, given = whole.pairs(), whole.load("report") if whole.given is None else _given(whole)
        assert hosts is not None
        kept = min(self.options.report, len(hosts) // 4)
        selection, hosts = hosts.pick(range(len(hosts) - kept, len(hosts))), hosts.pick(range(len(hosts) - kept))
        self.reports = {"given": given, "own": selection}
        self.results["hosts"] = {
            "train": len(hosts),
            **{name: len(reported) for name, reported in self.reports.items()},
        }
        if self.options.save:
            self.save(hosts)
        self.results["rivals"] = {
            name: self.rivals(builder, reported, hosts) for name, reported in self.reports.items()
        }
        self.say(f"rivals: {json.dumps(self.results['rivals'])}")
        self.write()
        self.train(hosts, selection)

    def save(self, hosts: Hosts) -> None:
        """The pairs with their former and latter, a few hundred a file."""
        for number, start in enumerate(range(0, min(len(hosts), self.options.files * PER_FILE), PER_FILE)):
            piece = hosts.pick(range(start, min(start + PER_FILE, len(hosts))))
            sealed_params.save_params(self.options.save / f"paper_pairs_{number}.safetensors", join(piece.parts()), {})

    def rivals(self, builder: Builder, hosts: Hosts, pairs: Hosts) -> dict[str, Any]:
        """What the report hosts reach with other blocks in the slot."""
        target, source = builder.runner.target, builder.runner.source
        assert hosts.target is not None
        blocks = {"source network": (source, hosts.source), "trained target": (target, hosts.target)}
        for name, rival in builder.rivals().items():
            case = RivalCase(hosts, pairs, builder.source, builder.target, seeds.derive(0, "rival", name))
            blocks[name.replace("_", " ")] = (target, rival.fill(case))
        by_block = accuracy.accuracies(builder.runner, hosts, blocks, builder.task.split("test"), builder.device)
        return {name: statistics.summarise(values).as_dict() for name, values in by_block.items()}

    def train(self, hosts: Hosts, select: Hosts) -> None:
        torch.set_float32_matmul_precision("high")
        counts = [len(hosts) // share for share in SHARES]
        points = [(size, count) for size in self.options.sizes for count in counts]
        seconds = {point: self.step_seconds(*point, hosts, select) for point in points}
        left = self.options.training
        epochs = max(1, int(left / sum(seconds.values())))
        rates = {f"{size} {count}": round(spent, 4) for (size, count), spent in seconds.items()}
        self.say(f"{epochs} epochs each; seconds an epoch: {rates}")
        for size, count in sorted(points, key=lambda point: (-point[1], SIZES.index(point[0]))):
            trainer = self.trainer(size, count, epochs, hosts, select)
            history = trainer.run(lambda epoch, metrics: None)
            point = {"size": size, "pairs": count, "epochs": epochs, "batch": min(4096, count)}
            point |= {"seconds": round(history.seconds, 1), "loss": history.epochs[-1]["loss"]}
            builder, translator = trainer.builder, trainer.translator.eval()
            for name, reported in self.reports.items():
                reported = reported.to(builder.device)
                with torch.no_grad():
                    written = translator.translate(reported.source, Context(reported, builder.runner))
                blocks = {"translated": (builder.runner.target, written)}
                values = accuracy.accuracies(
                    builder.runner, reported, blocks, builder.task.split("test"), builder.device
                )
                point[name] = statistics.summarise(values["translated"]).as_dict()
            self.results["points"].append(point)
            self.say(json.dumps({**point, **{name: round(point[name]["mean"], 1) for name in self.reports}}))
            self.write()

    def trainer(self, size: str, count: int, epochs: int, hosts: Hosts, select: Hosts) -> Trainer:
        further = [f"training.epochs={epochs}", f"training.batch_size={min(4096, count)}"]
        further += [f"training.evaluate_every={epochs}", f"training.checkpoint_every={epochs}", "training.lr=0.001"]
        builder = self.builder(len(hosts), f"translator.size={size}", *further)
        builder.task.prepare(self.folder)
        checkpoint = Path(tempfile.mkdtemp())
        return Trainer(builder, builder.translator(0), hosts.pick(range(count)), select.pick(range(2)), checkpoint)

    def step_seconds(self, size: str, count: int, hosts: Hosts, select: Hosts) -> float:
        """One epoch of a translator, with what an epoch needs beside its steps."""
        trainer = self.trainer(size, count, 1, hosts, select)
        for number in range(2 * STEPS_TIMED):
            if number == STEPS_TIMED:
                _wait()
                started = time.perf_counter()
            trainer._epoch(1)
        _wait()
        return (time.perf_counter() - started) / STEPS_TIMED


def _given(zoo: Zoo) -> Hosts:
    """The hosts of `zoo.report_from`, with their targets."""
    file = zoo.given
    assert file is not None
    count = zoo.count("report")
    target = split(file.targets(0, count), "target")
    return Hosts.from_network(file.hosts(0, count), target, range(count), zoo.stream)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=float, default=150, help="seconds for pairs")
    parser.add_argument("--training", type=float, default=90, help="seconds for all translators")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=SIZES)
    parser.add_argument("--shard", type=int, default=256, help="hosts trained at once")
    parser.add_argument("--most", type=int, default=8192, help="pairs at most")
    parser.add_argument("--report", type=int, default=64, help="hosts kept for the report")
    parser.add_argument("--out", type=Path, default=Path("docs/results/paper/gpu_curve.json"))
    parser.add_argument("--save", type=Path, help="a folder for the pairs themselves")
    parser.add_argument("--files", type=int, default=3, help=f"of {PER_FILE} pairs, at most")
    parser.add_argument("--cache", help="where zoos are kept")
    parser.add_argument("--set", action="append", default=[], help="further settings of the config")
    Curve(parser.parse_args()).run()


if __name__ == "__main__":
    main()
