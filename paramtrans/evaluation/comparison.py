"""All methods side by side, on the report hosts and the test images."""

from __future__ import annotations

import logging
import time
from typing import Any

import torch
from torch import Tensor

from paramtrans.api import stacking as stacks
from paramtrans.api.context import Context
from paramtrans.api.hosts import Hosts
from paramtrans.api.records import (
    EVALUATION_FORMAT,
    BestOfAll,
    BlockCosts,
    BreakEven,
    Diagnosed,
    Difference,
    Evaluation,
    History,
    Measured,
    MethodResult,
    OwnTranslator,
    ReportHosts,
    Trained,
)
from paramtrans.api.rival import RivalCase
from paramtrans.api.specs import BlockSpec
from paramtrans.api.stacking import Params
from paramtrans.api.translator import Translator
from paramtrans.builder import Builder
from paramtrans.errors import TrainingError
from paramtrans.evaluation.costs import block_costs, break_even, translator_costs
from paramtrans.evaluation.diagnosis import Diagnosis
from paramtrans.evaluation.metrics import measured
from paramtrans.ops.statistics import gap_closed, summarise
from paramtrans.translators.chain import Filled, Method
from paramtrans.utils import seeds
from paramtrans.utils.counts import counted
from paramtrans.utils.progress import Reporter

IMAGES_SHOWN, IMAGES_DIAGNOSED = 4, 256
IMAGES_NDIM = 5
"""Axes of what can be shown: `[hosts, images, channels, height, width]`."""
OF_TASK = "the task's metric"
"""Its key among those of the run, which are called by components."""
SILENT = 0.5
"""The share of hidden units that may be silent before a run says so."""

logger = logging.getLogger(__name__)


class Comparison:
    """All methods on the same hosts, the run's own translator first."""

    def __init__(self, builder: Builder, translator: Translator | None, hosts: Hosts, pairs: Hosts | None) -> None:
        self.builder, self.translator, self.hosts, self.pairs = builder, translator, hosts, pairs
        self.by = builder.measured_by
        self.values: dict[str, Tensor] = {}
        """The task's metric: method → `[hosts]`."""
        self.metrics: dict[str, dict[str, Tensor]] = {}
        """What was measured beside it: metric → method → `[hosts]`."""
        self.examples = 0
        """On how many examples hosts are measured."""
        self.filled: dict[str, Filled] = {}

    def run(self, reporter: Reporter, seconds_per_target: float | None) -> None:
        """Fill every host's slot by every method, and measure.

        Args:
            reporter: It is told how far this is.
            seconds_per_target: What step 2 took for a host; None where it was not run here.

        Raises:
            SpecMismatch: a method writes something else than target blocks.
            TrainingError: what it writes is not finite.
        """
        runner = self.builder.runner
        self._translate(reporter)
        if self.hosts.target is not None:
            examples = len(runner.task.split("train"))
            self.filled["trained_target"] = Filled(self.hosts.target, seconds_per_target, examples)
        self._rivals()
        networks = {"source": (runner.source, self.hosts.source)}
        networks |= {method: (runner.target, filled.blocks) for method, filled in self.filled.items()}
        settings = self.builder.config.evaluation
        test = runner.task.split("holdout" if settings.holdout else "test").first(settings.examples)
        self.examples = len(test)
        with reporter.stage(f"evaluation: {counted(len(networks), 'method')}", len(self.hosts)) as stage:
            metrics = {OF_TASK: self.builder.metric, **self.builder.metrics()}
            means = measured(runner, self.hosts, networks, test, metrics, self.builder.device, stage.advance)
        self.values, self.metrics = means.pop(OF_TASK), means

    def result(
        self,
        history: History | None,
        zoo_seconds: float,
        zoo: dict[str, int],
        diverged: dict[str, list[int]],
        paper_way: BestOfAll | None,
    ) -> Evaluation:
        """What `evaluation.json` says.

        Args:
            history: What the training of the translator recorded; None without any.
            zoo_seconds: What the zoo's shards took to train.
            zoo: By role, how many hosts there were.
            diverged: By role, seeds of the hosts that were left out.
            paper_way: The best of all epochs on the report hosts, as the paper tells it; None unless asked for.
        """
        builder = self.builder
        costs = block_costs({"source": builder.source, "target": builder.target}, builder.task.slot, builder.device)
        return Evaluation(
            format=EVALUATION_FORMAT,
            metric=self.by,
            methods=self._summaries(),
            seconds_per_host={method: filled.seconds for method, filled in self.filled.items()},
            baseline=self._baseline(),
            hosts=ReportHosts(
                seeds=list(self.hosts.seeds),
                accuracies={method: values.tolist() for method, values in self.values.items()},
            ),
            examples=self.examples,
            translator=self._of_own_translator(),
            diagnosis=self._diagnosis(),
            blocks=BlockCosts(**costs),
            break_even=None if self.translator is None else self._pays(history, zoo_seconds),
            training=None
            if history is None
            else Trained(
                epochs=len(history.epochs),
                best_epoch=history.best_epoch,
                best_select=history.best_accuracy,
                loss=history.epochs[-1]["loss"],
            ),
            zoo=zoo,
            diverged=diverged,
            paper_way=paper_way,
        )

    @torch.no_grad()
    def feature_maps(self) -> dict[str, Tensor]:
        """What the first report host makes of a few test images: channel means `[images, height, width]` (Fig. 5).

        Of inputs and features that are no images there are none.
        """
        builder, runner = self.builder, self.builder.runner
        hosts = self.hosts.pick([0]).to(builder.device)
        raw = builder.task.split("test").inputs[:IMAGES_SHOWN].to(builder.device)
        inputs = builder.task.to_input(raw).unsqueeze(0)
        former = runner.former(hosts.former, inputs)
        maps = {"input": inputs, "former": former, "source": runner.source(hosts.source, former)}
        for method in ("trained_target", "random_init", "random_replacement", "translated"):
            if method in self.filled:
                first = stacks.take(self.filled[method].blocks, [0])
                block = {name: t.to(builder.device) for name, t in first.items()}
                maps[method] = runner.target(block, former)
        return {name: values[0].mean(dim=1).cpu() for name, values in maps.items() if values.ndim == IMAGES_NDIM}

    def _translate(self, reporter: Reporter) -> None:
        """The run's own translator, and the methods beside it."""
        builder, on_device = self.builder, self.hosts.to(self.builder.device)
        methods = {} if self.translator is None else {"translated": Method([self.translator], None)}
        methods |= builder.methods()
        seed = seeds.derive(builder.config.evaluation.seed, "methods")
        with reporter.stage(f"translation: {counted(len(methods), 'method')}", len(methods)) as stage:
            for label, method in methods.items():
                start = self.filled["translated"] if label in builder.going_on else None
                filled = method.fill(on_device, builder.runner, seed, start)
                check_blocks(filled.blocks, builder.target.spec, label)
                self.filled[label] = filled
                stage.advance(1, label)
        self.filled = {label: filled.to("cpu") for label, filled in self.filled.items()}

    def _rivals(self) -> None:
        """Rivals that need pairs are left out where there are none."""
        builder = self.builder
        seed = seeds.derive(builder.config.evaluation.seed, "rivals")
        case = RivalCase(self.hosts, self.pairs, builder.source, builder.target, seed)
        for name, rival in builder.rivals().items():
            if self.pairs or not rival.needs_pairs:
                started = time.monotonic()
                blocks = rival.fill(case)
                stacks.check(blocks, builder.target.spec, f"rival {name}")
                self.filled[name] = Filled(blocks, (time.monotonic() - started) / len(self.hosts))

    def _summaries(self) -> dict[str, MethodResult]:
        """Each method's metric, its difference to the baseline host by host, and the images it looked at.

        No times, so that a run made again has the same.
        """
        summaries = {method: summarise(values) for method, values in self.values.items()}
        means = {method: summary.mean for method, summary in summaries.items()}
        baseline = self._baseline()
        results = {}
        for method, summary in summaries.items():
            further: dict[str, Any] = {"gap_closed": gap_closed(means, method, self.by.higher_is_better)}
            if baseline is not None and baseline != method:
                difference = summarise(self.values[method] - self.values[baseline])
                further["difference"] = Difference(mean=difference.mean, ci95=list(difference.ci95))
            if filled := self.filled.get(method):
                further["images"] = filled.images
            if self.metrics:
                further["metrics"] = {
                    name: Measured(**summarise(values[method]).as_dict()) for name, values in self.metrics.items()
                }
            results[method] = MethodResult(**summary.as_dict(), **further)
        return results

    def _diagnosis(self) -> Diagnosed:
        """What is to be said of each method's blocks, on training inputs without their labels."""
        builder, train = self.builder, self.builder.task.split("train")
        inputs = builder.task.to_input(train.inputs[:IMAGES_DIAGNOSED].to(builder.device))
        hosts = self.hosts.to(builder.device)
        diagnosis = Diagnosis(builder.runner, builder.target, hosts, inputs, train.of_classes)
        trained = self.pairs.target if self.pairs else None
        methods = {
            method: diagnosis.of(filled.blocks, self.by.gain(self.values["source"], self.values[method]), trained)
            for method, filled in self.filled.items()
        }
        share = methods["translated"].silent_units if "translated" in methods else None
        if share is not None and share > SILENT:
            logger.warning(
                "translated: %.0f%% of the blocks' hidden units are silent on all inputs (dead ReLUs), so that the "
                "blocks do little; lower training.lr, set training.clip, or let the translator start at a sane block",
                100 * share,
            )
        return Diagnosed(images=len(inputs), methods=methods)

    def _baseline(self) -> str | None:
        """The method that all are compared with; None where it is not among them."""
        name = self.builder.config.evaluation.baseline or "translated"
        return name if name in self.values else None

    def _of_own_translator(self) -> OwnTranslator | None:
        """The run's own translator, in a few words."""
        if self.translator is None or self.builder.config.translator is None:
            return None
        host = self.hosts.pick([0]).to(self.builder.device)
        costs = translator_costs(self.translator, host.source, Context(host, self.builder.runner))
        return OwnTranslator(
            name=self.builder.config.translator.name,
            **costs._asdict(),
            target_bytes=self.translator.target_bytes,
        )

    def _pays(self, history: History | None, zoo_seconds: float) -> BreakEven:
        """What the run's own translator cost, and after how many models it has paid."""
        training = history.seconds if history else 0.0
        translation = self.filled["translated"].seconds
        assert translation is not None
        step2 = self.filled["trained_target"].seconds if "trained_target" in self.filled else None
        return BreakEven(
            models=None if step2 is None else break_even(zoo_seconds, training, translation, step2),
            zoo_seconds=zoo_seconds,
            training_seconds=training,
            translation_seconds=translation,
            step2_seconds=step2,
        )


def check_blocks(blocks: Params, spec: BlockSpec, method: str) -> None:
    """Raise unless a method wrote every tensor of the target, finite, and positive where it must be."""
    stacks.check(blocks, spec, method)
    for tensor in spec.tensors:
        values = blocks[tensor.name]
        if not values.isfinite().all():
            raise TrainingError(f"{method}: wrote values that are not finite to {tensor.name}; lower its learning rate")
        if tensor.positive and not (values > 0).all():
            raise TrainingError(f"{method}: wrote values that are not positive to {tensor.name}, a variance")
