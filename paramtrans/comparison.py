"""The translator beside its rivals, on the report hosts and the test images."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from paramtrans import hosts as stacks
from paramtrans import seeds
from paramtrans.errors import TrainingError
from paramtrans.evaluation import accuracies, block_costs, break_even, summarise, translator_costs
from paramtrans.hosts import Hosts, Params
from paramtrans.parts import Parts
from paramtrans.progress import Reporter
from paramtrans.protocols import Context, RivalCase, Translator

IMAGES_SHOWN = 4


class Comparison:
    """All methods on the same hosts. `zoo_seconds` and `step2_seconds` are what the zoo's shards took."""

    def __init__(self, parts: Parts, translator: Translator, hosts: Hosts, pairs: Hosts | None) -> None:
        self.parts, self.translator, self.hosts, self.pairs = parts, translator, hosts, pairs
        self.accuracies: dict[str, Tensor] = {}
        self.blocks: dict[str, Params] = {}
        self.translation_seconds = 0.0

    def run(self, reporter: Reporter) -> None:
        """Fill every host's slot by every method, and measure."""
        self.blocks = {"translated": self._translated()}
        if self.hosts.target is not None:
            self.blocks["trained_target"] = self.hosts.target
        self.blocks |= self._rivals()
        runner = self.parts.runner
        networks = {"source": (runner.source, self.hosts.source)}
        networks |= {method: (runner.target, block) for method, block in self.blocks.items()}
        test = runner.task.split("test")
        with reporter.stage(f"evaluation: {len(networks)} methods", len(self.hosts)) as stage:
            self.accuracies = accuracies(runner, self.hosts, networks, test, self.parts.device, stage.advance)

    def result(self, history: dict[str, Any] | None, zoo_seconds: float, step2_seconds: float | None) -> dict[str, Any]:
        """What `evaluation.json` says, but for the numbers of hosts; `step2_seconds` is the time of one target."""
        parts = self.parts
        costs = block_costs({"source": parts.source, "target": parts.target}, parts.task.slot, parts.device)
        training = history["seconds"] if history else 0.0
        per_host = self.translation_seconds / len(self.hosts)
        return {
            "format": 1,
            "methods": {method: summarise(values).as_dict() for method, values in self.accuracies.items()},
            "hosts": {
                "seeds": list(self.hosts.seeds),
                "accuracies": {method: values.tolist() for method, values in self.accuracies.items()},
            },
            "translator": {"name": parts.config.translator.name, **self._translator_costs()},
            "blocks": {name: asdict(cost) for name, cost in costs.items()},
            "break_even": {
                "models": None if step2_seconds is None else break_even(zoo_seconds, training, per_host, step2_seconds),
                "zoo_seconds": zoo_seconds,
                "training_seconds": training,
                "translation_seconds": per_host,
                "step2_seconds": step2_seconds,
            },
            "training": None
            if history is None
            else {
                "epochs": len(history["epochs"]),
                "best_epoch": history["best_epoch"],
                "best_select": history["best_accuracy"],
                "loss": history["epochs"][-1]["loss"],
            },
        }

    @torch.no_grad()
    def feature_maps(self) -> dict[str, Tensor]:
        """What the first report host makes of a few test images: channel means `[images, height, width]` (Fig. 5)."""
        parts, runner = self.parts, self.parts.runner
        hosts = self.hosts.pick([0]).to(parts.device)
        raw = parts.task.split("test").inputs[:IMAGES_SHOWN].to(parts.device)
        inputs = parts.task.to_input(raw).unsqueeze(0)
        former = runner.former(hosts.former, inputs)
        maps = {"input": inputs, "former": former, "source": runner.source(hosts.source, former)}
        for method in ("trained_target", "random_init", "random_replacement", "translated"):
            if method in self.blocks:
                block = {name: t.to(parts.device) for name, t in stacks.take(self.blocks[method], [0]).items()}
                maps[method] = runner.target(block, former)
        return {name: values[0].mean(dim=1).cpu() for name, values in maps.items()}

    def _translated(self) -> Params:
        on_device = self.hosts.to(self.parts.device)
        started = time.monotonic()
        blocks = self.translator.translate(on_device.source, Context(on_device, self.parts.runner))
        self.translation_seconds = time.monotonic() - started
        blocks = {name: tensor.cpu() for name, tensor in blocks.items()}
        check_blocks(blocks, self.parts)
        return blocks

    def _translator_costs(self) -> dict[str, int]:
        host = self.hosts.pick([0]).to(self.parts.device)
        return translator_costs(self.translator, host.source, Context(host, self.parts.runner))

    def _rivals(self) -> dict[str, Params]:
        """Rivals that need pairs are left out where there are none."""
        parts = self.parts
        seed = seeds.derive(parts.config.evaluation.seed, "rivals")
        case = RivalCase(self.hosts, self.pairs, parts.source, parts.target, seed)
        rivals = {name: rival for name, rival in parts.rivals().items() if self.pairs or not rival.needs_pairs}
        filled = {name: rival.fill(case) for name, rival in rivals.items()}
        for name, block in filled.items():
            stacks.check(block, parts.target.spec, f"rival {name}")
        return filled


def check_blocks(blocks: Params, parts: Parts) -> None:
    """Raise unless the translator wrote every tensor of the target, finite, and positive where it must be."""
    name = f"translator {parts.config.translator.name}"
    stacks.check(blocks, parts.target.spec, name)
    for tensor in parts.target.spec.tensors:
        values = blocks[tensor.name]
        if not values.isfinite().all():
            raise TrainingError(f"{name}: wrote values that are not finite to {tensor.name}; lower training.lr")
        if tensor.positive and not (values > 0).all():
            raise TrainingError(f"{name}: wrote values that are not positive to {tensor.name}, a variance")
