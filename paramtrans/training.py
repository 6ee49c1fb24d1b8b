"""The translator's loop: batches of hosts, augmenters, objectives, Adam, selection, checkpoints."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paramtrans import evaluation, seeds, store
from paramtrans.errors import StoreError, TrainingError
from paramtrans.hosts import Hosts, Params, take
from paramtrans.learned import LearnedTranslator
from paramtrans.parts import Parts
from paramtrans.protocols import Batch, Context, Objective
from paramtrans.stacked import HostRunner

FORMAT = 1
"""Version of a checkpoint."""
SMALLEST_VARIANCE = 1e-4

logger = logging.getLogger(__name__)


@dataclass
class History:
    """What training has gone through so far; kept in checkpoints."""

    epochs: list[dict[str, float]] = field(default_factory=list)
    """For each finished epoch: `loss`, `lr`, and `select` (accuracy in percent) where it was evaluated."""
    best_epoch: int = 0
    best_accuracy: float | None = None
    seconds: float = 0.0
    """Wall-clock time of training, over all interruptions."""


@dataclass(frozen=True)
class Lesson:
    """One size of the target block: the translator at that size, and what judges it there."""

    translator: LearnedTranslator
    runner: HostRunner
    objectives: list[tuple[float, Objective]]


class Trainer:
    """Trains one learned translator on hosts; goes on where the folder `checkpoint` holds one."""

    def __init__(
        self, parts: Parts, translator: LearnedTranslator, train: Hosts, select: Hosts, checkpoint: Path
    ) -> None:
        self.parts, self.translator, self.checkpoint = parts, translator.to(parts.device), checkpoint
        assert parts.config.training is not None  # required where a translator learns
        self.options = parts.config.training
        self.hosts, self.select = train.to(parts.device), select
        self.augmenters = parts.augmenters()
        self.lessons = [Lesson(translator, parts.runner, parts.objectives())]
        for target in parts.sizes():
            runner = HostRunner(parts.task, parts.source, target)
            resized = translator.resized(parts.source, target)
            self.lessons.append(Lesson(resized, runner, parts.objectives(runner)))
        self.examples = max(objective.examples for _, objective in self.lessons[0].objectives)
        self.reading = parts.source.read(self.hosts.source)
        self.history = History()
        translator.start(self.reading, Context(self.hosts, parts.runner))
        self.best = {name: tensor.clone() for name, tensor in translator.state_dict().items()}
        self.optimizer = torch.optim.Adam(
            translator.parameters(), self.options.lr, weight_decay=self.options.weight_decay
        )

    def run(self, epoch_ended: Callable[[int, dict[str, float]], None]) -> History:
        """Train to the last epoch; the translator ends with the weights of its best evaluation."""
        self._resume()
        earlier, started = self.history.seconds, time.monotonic()
        for epoch in range(len(self.history.epochs) + 1, self.options.epochs + 1):
            metrics = self._epoch(epoch)
            last = epoch == self.options.epochs
            if last or epoch % self.options.evaluate_every == 0:
                metrics["select"] = self._evaluate(epoch)
            self.history.epochs.append(metrics)
            self.history.seconds = earlier + time.monotonic() - started
            epoch_ended(epoch, metrics)
            if last or epoch % self.options.checkpoint_every == 0:
                self._save()
        self.translator.load_state_dict(self.best)
        return self.history

    def rate(self, epoch: int) -> float:
        """Learning rate during an epoch, counted from 1."""
        options = self.options
        if epoch <= options.warmup_epochs:
            return options.lr * epoch / options.warmup_epochs
        if options.schedule == "constant":
            return options.lr
        done = (epoch - 1 - options.warmup_epochs) / max(1, options.epochs - options.warmup_epochs)
        return options.lr * 0.5 * (1 + math.cos(math.pi * done))

    def _epoch(self, epoch: int) -> dict[str, float]:
        """One pass over the training hosts. All its randomness comes from the seed and the epoch's number."""
        seed = seeds.derive(self.options.seed, "epoch", epoch)
        generator = torch.Generator().manual_seed(seed)
        rate = self.rate(epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.translator.train()
        losses = []
        with torch.random.fork_rng(devices=[self.parts.device] if self.parts.device.type == "cuda" else []):
            torch.manual_seed(seed)
            for chosen in self._order(generator):
                losses.append(self.step(chosen, generator))
        loss = torch.stack(losses).mean().item()
        if not math.isfinite(loss):
            raise TrainingError(
                f"training: the loss is {loss} in epoch {epoch}; lower training.lr, or set training.clip"
            )
        return {"loss": loss, "lr": rate}

    def _order(self, generator: torch.Generator) -> Iterator[list[int]]:
        order = torch.randperm(len(self.hosts), generator=generator).tolist()
        for start in range(0, len(order), self.options.batch_size):
            yield order[start : start + self.options.batch_size]

    def step(self, chosen: list[int], generator: torch.Generator) -> Tensor:
        """One optimiser step on the hosts at `chosen`; returns the loss, a scalar outside any graph."""
        number = int(torch.randint(len(self.lessons), (), generator=generator)) if len(self.lessons) > 1 else 0
        lesson = self.lessons[number]
        batch = self._batch(self.hosts.pick(chosen), generator)
        if number:
            batch = replace(batch, target=None)  # trained targets are of the target's own size
        reading = self._augment("source", take(self.reading, chosen), generator)
        predicted = lesson.translator(reading, Context(batch.hosts, lesson.runner))
        loss = torch.stack([weight * objective(predicted, batch) for weight, objective in lesson.objectives]).sum()
        self.optimizer.zero_grad()
        loss.backward()
        if self.options.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.translator.parameters(), self.options.clip)
        self.optimizer.step()
        return loss.detach()

    def _batch(self, hosts: Hosts, generator: torch.Generator) -> Batch:
        target = None if hosts.target is None else self._augment("target", hosts.target, generator)
        if not self.examples:
            return Batch(hosts, target, None, None)
        task, device = self.parts.task, self.parts.device
        split = task.split("train")
        drawn = torch.randint(len(split), (len(hosts), self.examples), generator=generator)
        return Batch(hosts, target, task.to_input(split.inputs[drawn].to(device)), split.labels[drawn].to(device))

    def _augment(self, what: str, params: Params, generator: torch.Generator) -> Params:
        for on, augmenter in self.augmenters:
            if on in (what, "both"):
                params = augmenter(params, generator)
        spec = self.parts.source.reading if what == "source" else self.parts.target.spec
        variances = {tensor.name for tensor in spec.tensors if tensor.positive}
        # Masking and noise know nothing of signs.
        return {name: t.clamp_min(SMALLEST_VARIANCE) if name in variances else t for name, t in params.items()}

    def accuracy(self, hosts: Hosts, split: str) -> float:
        """Mean accuracy of hosts as translated now, on a split of the task."""
        parts, hosts = self.parts, hosts.to(self.parts.device)
        translated = self.translator.translate(hosts.source, Context(hosts, parts.runner))
        blocks = {"translated": (parts.runner.target, translated)}
        found = evaluation.accuracies(parts.runner, hosts, blocks, parts.task.split(split), parts.device)
        return found["translated"].mean().item()

    def _evaluate(self, epoch: int) -> float:
        """Accuracy of the selection hosts on images held out of training; keeps the best weights."""
        mean = self.accuracy(self.select, "holdout")
        if self.history.best_accuracy is None or mean > self.history.best_accuracy:
            self.history.best_accuracy, self.history.best_epoch = mean, epoch
            self.best = {name: tensor.clone() for name, tensor in self.translator.state_dict().items()}
        return mean

    def _save(self) -> None:
        """Write a new point to go on from, whole, before the one before it is dropped."""
        tensors = {f"now.{name}": t for name, t in self.translator.state_dict().items()}
        tensors |= {f"best.{name}": t for name, t in self.best.items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{name}": value for name, value in state.items()}
        path = self.checkpoint / f"epoch-{len(self.history.epochs):07d}.safetensors"
        store.save_params(path, tensors, {**self._identity(), "history": asdict(self.history)})
        for other in set(self.checkpoint.glob("epoch-*")) - {path, store.record_path(path)}:
            store.remove(other)

    def _identity(self) -> dict[str, Any]:
        return {"format": FORMAT, "config": store.digest(self.parts.config.identity())}

    def _resume(self) -> None:
        """Take up the latest point that is whole and belongs to this config."""
        found = {
            path.with_name(path.name.removesuffix(".json")) for path in self.checkpoint.glob("epoch-*.safetensors*")
        }
        for path in sorted(found, reverse=True):
            try:
                tensors, record = store.load_params(path)
            except StoreError as error:
                logger.warning("%s; training goes on from an earlier point", error)
                continue
            if {key: record.get(key) for key in self._identity()} == self._identity():
                self._restore(tensors, record)
                return

    def _restore(self, tensors: Params, record: dict[str, Any]) -> None:
        on_device = {name: t.to(self.parts.device) for name, t in tensors.items()}
        self.translator.load_state_dict(_below("now.", on_device))
        self.best = _below("best.", on_device)
        adam = self.optimizer.state_dict()
        for name, value in _below("adam.", tensors).items():
            index, _, key = name.partition(".")
            adam["state"].setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict(adam)
        self.history = History(**record["history"])


def _below(prefix: str, tensors: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
