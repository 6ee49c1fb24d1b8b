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
from paramtrans.api.records import History
from paramtrans.api.stacking import Params, check, take
from paramtrans.backends.host_runner import HostRunner
from paramtrans.builder import Builder
from paramtrans.errors import ConfigError, StopRun, TrainingError
from paramtrans.evaluation.metrics import measured
from paramtrans.storage import json_files
from paramtrans.storage.training_checkpoint import Checkpoint
from paramtrans.training.steps import Drawn, TrainingStep, take_up
from paramtrans.translators.base import LearnedTranslator
from paramtrans.utils import seeds
from paramtrans.utils.boundary import well_formed
from paramtrans.utils.distributed import ProcessGroup, cut

FORMAT = 1
"""Version of a checkpoint."""
SMALLEST_VARIANCE = 1e-4
EpochEnded = Callable[[int, dict[str, float]], None]
"""Is told the number of an epoch, counted from 1, and its metrics."""


class Trainer:
    """Trains one learned translator on hosts; goes on where the folder `checkpoint` holds one.

    `processes` share out the hosts of every step. Their translators stay the same; the first evaluates and writes.
    """

    def __init__(
        self,
        builder: Builder,
        translator: LearnedTranslator,
        train: Hosts,
        select: Hosts,
        checkpoint: Path,
        processes: ProcessGroup | None = None,
        others: Sequence[tuple[Builder, Hosts]] = (),
    ) -> None:
        """`others` are selection hosts of further tasks, which count as much as those of the run's own."""
        self.builder, self.translator = builder, translator.to(builder.device)
        identity = {"format": FORMAT, "config": json_files.digest(builder.config.identity())}
        self.checkpoint = Checkpoint(checkpoint, identity)
        assert builder.config.training is not None  # required where a translator learns
        self.options, self.processes = builder.config.training, processes or ProcessGroup()
        self.hosts, self.select = train.to(builder.device), [(builder, select), *others]
        self.augmenters = builder.augmenters()
        self.training_steps = [TrainingStep(translator, builder.runner, builder.objectives())]
        for target in (*builder.sizes(), *builder.targets()):
            runner = HostRunner(builder.task, builder.source, target)
            resized = translator.resized(builder.source, target)
            self.training_steps.append(TrainingStep(resized, runner, builder.objectives(runner)))
        if self.options.compile:
            for step in self.training_steps:
                step.translator.compile()
        self.examples = max(objective.examples for _, objective in self.training_steps[0].objectives)
        self.reading = builder.source.read(self.hosts.source)
        self.history, self._begun = History(), False
        translator.start(self.reading, Context(self.hosts, builder.runner))
        self.best = {name: tensor.clone() for name, tensor in translator.state_dict().items()}
        self.optimizer = torch.optim.Adam(
            translator.parameters(), self.options.lr, weight_decay=self.options.weight_decay
        )

    def begin(self) -> int:
        """Take up the latest point of an earlier attempt, unless that was done; the epochs until there."""
        if not self._begun:
            self._begun = True
            self._resume()
            self._begin_together()
        return len(self.history.epochs)

    def run(self, epoch_ended: EpochEnded) -> History:
        """Train to the last epoch; the translator ends with the weights of its best evaluation."""
        first, earlier, started = self.begin() + 1, self.history.seconds, time.monotonic()
        for epoch in range(first, self.options.epochs + 1):
            metrics = self._epoch(epoch)
            last = epoch == self.options.epochs
            if self.processes.leads and (last or epoch % self.options.evaluate_every == 0):
                metrics["select"] = self._evaluate(epoch)
            self.history.epochs.append(metrics)
            self.history.seconds = earlier + time.monotonic() - started
            self._tell(epoch_ended, epoch, metrics)
            if self.processes.leads and (last or epoch % self.options.checkpoint_every == 0):
                self._save()
        self.translator.load_state_dict(self.best)
        return self.history

    def _tell(self, epoch_ended: EpochEnded, epoch: int, metrics: dict[str, float]) -> None:
        """Say that an epoch ended; where that ends the run, what was learned is kept."""
        try:
            epoch_ended(epoch, metrics)
        except StopRun:
            self._save()
            raise

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
        with torch.random.fork_rng(devices=[self.builder.device] if self.builder.device.type == "cuda" else []):
            # What a network draws inside, as dropout does, differs from process to process.
            torch.manual_seed(seeds.derive(seed, "process", self.processes.rank) if self.processes.rank else seed)
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
        """One optimiser step.

        Args:
            chosen: Numbers of the training hosts it is about.
            generator: Where augmentation draws from.

        Returns:
            The loss, a scalar outside any graph.
        """
        count = len(self.training_steps)
        number = int(torch.randint(count, (), generator=generator)) if count > 1 else 0
        drawn = self._draw(chosen, generator, targets=not number)  # trained targets are of the run's own kind
        self.optimizer.zero_grad()
        share, loss = self.processes.share(len(chosen)), torch.zeros((), device=self.builder.device)
        for piece in cut(len(share), self.options.accumulate):
            if piece:
                loss += self._backward(self.training_steps[number], drawn, share[piece.start : piece.stop])
        self._add_up(loss)
        if self.options.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.translator.parameters(), self.options.clip)
        self.optimizer.step()
        return loss

    def _backward(self, step: TrainingStep, drawn: Drawn, share: range) -> Tensor:
        """Add the gradients of a share of the hosts; returns their part of the mean loss over all of them."""
        batch = self._batch(drawn, share)
        reading = drawn.reading if len(share) == len(drawn.hosts) else take(drawn.reading, share)
        context = Context(batch.hosts, step.runner)
        with torch.autocast(self.builder.device.type, torch.bfloat16, enabled=self.options.precision == "bf16"):
            predicted = self._predicted(step.translator, reading, context)
        predicted = {name: tensor.float() for name, tensor in predicted.items()}
        losses = [weight * objective(predicted, batch) for weight, objective in step.objectives]
        loss = torch.stack(losses).sum() * (len(share) / len(drawn.hosts))
        loss.backward()
        return loss.detach()

    def _add_up(self, loss: Tensor) -> None:
        """Gradients and loss over the shares of all processes."""
        if self.processes.size > 1:
            trained = [p for p in self.translator.parameters() if p.requires_grad]
            reached = torch.tensor([float(p.grad is not None) for p in trained], device=loss.device)
            for parameter in trained:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)  # a share may be empty
            self.processes.add([*(p.grad for p in trained if p.grad is not None), reached, loss])
            for parameter, processes in zip(trained, reached.tolist(), strict=True):
                if not processes:
                    parameter.grad = None  # of a family that this step was not about: the optimiser passes it over

    def _draw(self, chosen: list[int], generator: torch.Generator, targets: bool) -> Drawn:
        target = None if self.hosts.target is None else take(self.hosts.target, chosen)
        target = None if target is None else self._augment("target", target, generator)
        examples = None
        if self.examples:
            count = len(self.builder.task.split("train"))
            examples = torch.randint(count, (len(chosen), self.examples), generator=generator)
        reading = self._augment("source", take(self.reading, chosen), generator)
        return Drawn(chosen, reading, target if targets else None, examples)

    def _batch(self, drawn: Drawn, share: range) -> Batch:
        task, device = self.builder.task, self.builder.device
        hosts = self.hosts.pick(drawn.hosts[share.start : share.stop])
        target = None if drawn.target is None else take(drawn.target, share)
        if drawn.examples is None:
            return Batch(hosts, target, None, None)
        split, examples = task.split("train"), drawn.examples[share.start : share.stop]
        return Batch(hosts, target, task.to_input(split.inputs[examples].to(device)), split.labels[examples].to(device))

    def _augment(self, what: str, params: Params, generator: torch.Generator) -> Params:
        spec = self.builder.source.reading if what == "source" else self.builder.target.spec
        for on, augmenter in self.augmenters:
            if on in (what, "both"):
                params = augmenter.change(params, spec, generator)
                check(params, spec, f"augmenter {type(augmenter).__name__}")
        variances = {tensor.name for tensor in spec.tensors if tensor.positive}
        # Masking and noise know nothing of signs.
        return {name: t.clamp_min(SMALLEST_VARIANCE) if name in variances else t for name, t in params.items()}

    def value(
        self, hosts: Hosts, split: str, builder: Builder | None = None, step: TrainingStep | None = None
    ) -> float:
        """Mean of the task's metric over hosts as they are translated now.

        Args:
            hosts: The hosts.
            split: The split of their task that they are tried on.
            builder: That of their task, where it is not the run's own.
            step: That of their target block, where it is not the run's own.
        """
        builder, hosts = builder or self.builder, hosts.to(self.builder.device)
        translator, runner = (step.translator, step.runner) if step else (self.translator, builder.runner)
        blocks = {"translated": (runner.target, translator.translate(hosts.source, Context(hosts, runner)))}
        examples = builder.task.split(split).first(builder.config.evaluation.examples)
        values = measured(runner, hosts, blocks, examples, {"select": builder.metric}, builder.device)
        return values["select"]["translated"].mean().item()

    def _evaluate(self, epoch: int) -> float:
        """The metric of the selection hosts on examples held out of training, the mean over target blocks; keeps the
        best weights."""
        values = [self.value(hosts, "holdout", builder) for builder, hosts in self.select]
        values += [self.value(self.select[0][1], "holdout", step=step) for step in self.training_steps[1:]]
        mean, best = sum(values) / len(values), self.history.best_accuracy
        if best is None or self.builder.measured_by.better(mean, best):
            self.history.best_accuracy, self.history.best_epoch = mean, epoch
            self.best = {name: tensor.clone() for name, tensor in self.translator.state_dict().items()}
        return mean

    def _begin_together(self) -> None:
        """Take over the weights of the process that leads; raises `TrainingError` where it is at another epoch."""
        for tensor in self.translator.state_dict().values():
            self.processes.follow(tensor)
        here = torch.tensor([len(self.history.epochs), len(self.hosts)])
        if not torch.equal(self.processes.follow(here.clone()), here):
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
        if (point := self.checkpoint.latest()) is None:
            return
        tensors, record = point
        on_device = {name: t.to(self.builder.device) for name, t in tensors.items()}
        with well_formed(self.checkpoint.folder, "remove it to train from the beginning"):
            self.history = History.read(record["history"], self.options.epochs)
            self.best = _below("best.", on_device)
            for state in (self.best, _below("now.", on_device)):
                self.translator.load_state_dict(state)
            take_up(self.optimizer, _below("adam.", tensors))


def _below(prefix: str, tensors: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
