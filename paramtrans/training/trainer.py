"""The translator's loop: batches of hosts, augmenters, objectives, Adam, selection, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paramtrans.api.context import Context
from paramtrans.api.hosts import Hosts
from paramtrans.api.objective import Batch
from paramtrans.api.stacking import Params, check, take
from paramtrans.backends.host_runner import HostRunner
from paramtrans.builder import Parts
from paramtrans.errors import ConfigError, TrainingError
from paramtrans.evaluation import accuracy
from paramtrans.storage import files
from paramtrans.storage.training_checkpoint import Checkpoint
from paramtrans.training.distributed import Group, cut
from paramtrans.training.records import Drawn, History, Lesson
from paramtrans.translators.base import LearnedTranslator
from paramtrans.utils import seeds
from paramtrans.utils.boundary import well_formed

FORMAT = 1
"""Version of a checkpoint."""
SMALLEST_VARIANCE = 1e-4


class Trainer:
    """Trains one learned translator on hosts; goes on where the folder `checkpoint` holds one.

    The processes of a `group` share out the hosts of every step. Their translators stay the same; the one that leads
    evaluates and writes.
    """

    def __init__(
        self,
        parts: Parts,
        translator: LearnedTranslator,
        train: Hosts,
        select: Hosts,
        checkpoint: Path,
        group: Group | None = None,
        others: Sequence[tuple[Parts, Hosts]] = (),
    ) -> None:
        """`others` are selection hosts of further tasks, which count as much as those of the run's own."""
        self.parts, self.translator = parts, translator.to(parts.device)
        identity = {"format": FORMAT, "config": files.digest(parts.config.identity())}
        self.checkpoint = Checkpoint(checkpoint, identity)
        assert parts.config.training is not None  # required where a translator learns
        self.options, self.group = parts.config.training, group or Group()
        self.hosts, self.select = train.to(parts.device), [(parts, select), *others]
        self.augmenters = parts.augmenters()
        self.lessons = [Lesson(translator, parts.runner, parts.objectives())]
        for target in (*parts.sizes(), *parts.targets()):
            runner = HostRunner(parts.task, parts.source, target)
            resized = translator.resized(parts.source, target)
            self.lessons.append(Lesson(resized, runner, parts.objectives(runner)))
        if self.options.compile:
            for lesson in self.lessons:
                lesson.translator.compile()
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
        self._begin_together()
        earlier, started = self.history.seconds, time.monotonic()
        for epoch in range(len(self.history.epochs) + 1, self.options.epochs + 1):
            metrics = self._epoch(epoch)
            last = epoch == self.options.epochs
            if self.group.leads and (last or epoch % self.options.evaluate_every == 0):
                metrics["select"] = self._evaluate(epoch)
            self.history.epochs.append(metrics)
            self.history.seconds = earlier + time.monotonic() - started
            epoch_ended(epoch, metrics)
            if self.group.leads and (last or epoch % self.options.checkpoint_every == 0):
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
            # What a network draws inside, as dropout does, differs from process to process.
            torch.manual_seed(seeds.derive(seed, "process", self.group.rank) if self.group.rank else seed)
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
        drawn = self._draw(chosen, generator, targets=not number)  # trained targets are of the run's own kind
        self.optimizer.zero_grad()
        share, loss = self.group.share(len(chosen)), torch.zeros((), device=self.parts.device)
        for piece in cut(len(share), self.options.accumulate):
            if piece:
                loss += self._backward(self.lessons[number], drawn, share[piece.start : piece.stop])
        self._add_up(loss)
        if self.options.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.translator.parameters(), self.options.clip)
        self.optimizer.step()
        return loss

    def _backward(self, lesson: Lesson, drawn: Drawn, share: range) -> Tensor:
        """Add the gradients of a share of the hosts; returns their part of the mean loss over all of them."""
        batch = self._batch(drawn, share)
        reading = drawn.reading if len(share) == len(drawn.hosts) else take(drawn.reading, share)
        context = Context(batch.hosts, lesson.runner)
        with torch.autocast(self.parts.device.type, torch.bfloat16, enabled=self.options.precision == "bf16"):
            predicted = self._predicted(lesson.translator, reading, context)
        predicted = {name: tensor.float() for name, tensor in predicted.items()}
        losses = [weight * objective(predicted, batch) for weight, objective in lesson.objectives]
        loss = torch.stack(losses).sum() * (len(share) / len(drawn.hosts))
        loss.backward()
        return loss.detach()

    def _add_up(self, loss: Tensor) -> None:
        """Gradients and loss over the shares of all processes."""
        if self.group.size > 1:
            trained = [p for p in self.translator.parameters() if p.requires_grad]
            reached = torch.tensor([float(p.grad is not None) for p in trained], device=loss.device)
            for parameter in trained:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)  # a share may be empty
            self.group.add([*(p.grad for p in trained if p.grad is not None), reached, loss])
            for parameter, processes in zip(trained, reached.tolist(), strict=True):
                if not processes:
                    parameter.grad = None  # of a family that this step was not about: the optimiser passes it over

    def _draw(self, chosen: list[int], generator: torch.Generator, targets: bool) -> Drawn:
        target = None if self.hosts.target is None else take(self.hosts.target, chosen)
        target = None if target is None else self._augment("target", target, generator)
        examples = None
        if self.examples:
            count = len(self.parts.task.split("train"))
            examples = torch.randint(count, (len(chosen), self.examples), generator=generator)
        reading = self._augment("source", take(self.reading, chosen), generator)
        return Drawn(chosen, reading, target if targets else None, examples)

    def _batch(self, drawn: Drawn, share: range) -> Batch:
        task, device = self.parts.task, self.parts.device
        hosts = self.hosts.pick(drawn.hosts[share.start : share.stop])
        target = None if drawn.target is None else take(drawn.target, share)
        if drawn.examples is None:
            return Batch(hosts, target, None, None)
        split, examples = task.split("train"), drawn.examples[share.start : share.stop]
        return Batch(hosts, target, task.to_input(split.inputs[examples].to(device)), split.labels[examples].to(device))

    def _augment(self, what: str, params: Params, generator: torch.Generator) -> Params:
        spec = self.parts.source.reading if what == "source" else self.parts.target.spec
        for on, augmenter in self.augmenters:
            if on in (what, "both"):
                params = augmenter.change(params, spec, generator)
                check(params, spec, f"augmenter {type(augmenter).__name__}")
        variances = {tensor.name for tensor in spec.tensors if tensor.positive}
        # Masking and noise know nothing of signs.
        return {name: t.clamp_min(SMALLEST_VARIANCE) if name in variances else t for name, t in params.items()}

    def accuracy(self, hosts: Hosts, split: str, parts: Parts | None = None, lesson: Lesson | None = None) -> float:
        """Mean accuracy of hosts as translated now, on a split of their task: the run's own, or that of `parts`; the
        target block is the run's own, or that of `lesson`."""
        parts, hosts = parts or self.parts, hosts.to(self.parts.device)
        translator, runner = (lesson.translator, lesson.runner) if lesson else (self.translator, parts.runner)
        translated = translator.translate(hosts.source, Context(hosts, runner))
        images = parts.task.split(split).first(parts.config.evaluation.examples)
        found = accuracy.accuracies(runner, hosts, {"translated": (runner.target, translated)}, images, parts.device)
        return found["translated"].mean().item()

    def _evaluate(self, epoch: int) -> float:
        """Accuracy of the selection hosts on images held out of training, the mean over target blocks; keeps the best
        weights."""
        found = [self.accuracy(hosts, "holdout", parts) for parts, hosts in self.select]
        found += [self.accuracy(self.select[0][1], "holdout", lesson=lesson) for lesson in self.lessons[1:]]
        mean = sum(found) / len(found)
        if self.history.best_accuracy is None or mean > self.history.best_accuracy:
            self.history.best_accuracy, self.history.best_epoch = mean, epoch
            self.best = {name: tensor.clone() for name, tensor in self.translator.state_dict().items()}
        return mean

    def _begin_together(self) -> None:
        """Take over the weights of the process that leads; raises `TrainingError` where it is at another epoch."""
        for tensor in self.translator.state_dict().values():
            self.group.follow(tensor)
        here = torch.tensor([len(self.history.epochs), len(self.hosts)])
        if not torch.equal(self.group.follow(here.clone()), here):
            raise TrainingError(
                "training: a process goes on from another point, or with other hosts, than the first one; "
                "run.dir and run.cache must be folders that all machines share"
            )

    def _predicted(self, translator: LearnedTranslator, reading: Params, context: Context) -> Params:
        """What the translator writes; raises `ConfigError` where it cannot be compiled."""
        try:
            predicted: Params = translator(reading, context)
            return predicted
        except RuntimeError as error:
            if not (self.options.compile and type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))):
                raise
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise ConfigError([f"training.compile: torch.compile fails here: {reason}; set it to false"]) from error

    def _save(self) -> None:
        tensors = {f"now.{name}": t for name, t in self.translator.state_dict().items()}
        tensors |= {f"best.{name}": t for name, t in self.best.items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{name}": value for name, value in state.items()}
        self.checkpoint.save(len(self.history.epochs), tensors, {"history": asdict(self.history)})

    def _resume(self) -> None:
        """Take up the latest point there is."""
        found = self.checkpoint.latest()
        if found is None:
            return
        tensors, record = found
        on_device = {name: t.to(self.parts.device) for name, t in tensors.items()}
        self.translator.load_state_dict(_below("now.", on_device))
        self.best = _below("best.", on_device)
        adam = self.optimizer.state_dict()
        for name, value in _below("adam.", tensors).items():
            index, _, key = name.partition(".")
            adam["state"].setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict(adam)
        with well_formed(self.checkpoint.folder):
            self.history = History(**record["history"])


def _below(prefix: str, tensors: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
