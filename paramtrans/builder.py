"""The components of one config, built: what every stage of a run works with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from paramtrans.api.adapter import BlockAdapter, check_fit
from paramtrans.api.augmenter import Augmenter
from paramtrans.api.context import Context
from paramtrans.api.executor import Executor
from paramtrans.api.metric import Metric, OwnScore
from paramtrans.api.objective import Objective
from paramtrans.api.records import MeasuredBy
from paramtrans.api.report_section import ReportSection
from paramtrans.api.rival import Rival
from paramtrans.api.runner import Runner
from paramtrans.api.task import Task
from paramtrans.api.translator import Translator
from paramtrans.backends import host_runner
from paramtrans.backends.host_runner import HostRunner
from paramtrans.config.components import MethodConfig
from paramtrans.config.schema import Config
from paramtrans.errors import ConfigError, SpecMismatch, UnknownName
from paramtrans.plugins.registry import Registry
from paramtrans.translators.base import LearnedTranslator
from paramtrans.translators.chain import Method


class Builder:
    """Builds task, adapters, translator and the rest from a resolved config, each of them once."""

    def __init__(self, config: Config, registry: Registry, like: Builder | None = None) -> None:
        """What is the same in `like`, task, blocks and their runner, is taken over from there, data and all."""
        self.config, self.registry = config, registry
        self._ready: set[Path] = set()
        if like is not None:
            names = ["task", "source", "target"]
            same = [name for name in names if getattr(like.config, name) == getattr(config, name)]
            self.__dict__ |= {name: getattr(like, name) for name in same}
            if same == names:
                self.__dict__["runner"] = like.runner
            if "task" in same:
                self._ready = like._ready

    def prepare(self, cache: Path) -> None:
        """Make the task's data ready, if they are not yet."""
        if cache not in self._ready:
            self.task.prepare(cache)
            self._ready.add(cache)

    def providers(self, step: int) -> dict[str, str]:
        """Who provides what a step of the zoo uses, each with its version; of a one-file plugin its name alone."""
        components = {"task": ("task", self.config.task)}
        components |= {"source": ("block_adapter", self.config.source)} if step == 1 else {}
        components |= {"target": ("block_adapter", self.config.target)} if step == 2 else {}
        providers = {part: self.registry.find(kind, named.name).provider for part, (kind, named) in components.items()}
        return {part: str(who) if who.version else Path(who.distribution).name for part, who in providers.items()}

    @cached_property
    def task(self) -> Task:
        task: Task = self._create("task", self.config.task)
        return task

    @cached_property
    def metric(self) -> Metric:
        """What results are measured by, as the task declares it."""
        return metric_of(self.task, self.registry)

    @property
    def measured_by(self) -> MeasuredBy:
        """The same in words."""
        metric, bounds = self.metric, self.metric.bounds
        return MeasuredBy(
            name=metric.label or _metric_table(self.task).get("name", "").replace("_", " "),
            unit=metric.unit,
            higher_is_better=metric.higher_is_better,
            bounds=None if bounds is None else list(bounds),
            digits=metric.digits,
        )

    @cached_property
    def source(self) -> BlockAdapter:
        return self._block("source")

    @cached_property
    def target(self) -> BlockAdapter:
        return self._block("target")

    def _block(self, path: str) -> BlockAdapter:
        """The source or target block; raises `ConfigError` where it is made of others that there are not."""
        try:
            block: BlockAdapter = self._create("block_adapter", getattr(self.config, path))
            return block
        except (SpecMismatch, UnknownName) as error:
            raise ConfigError([f"{path}: {error}"]) from error

    @cached_property
    def runner(self) -> HostRunner:
        return HostRunner(self.task, self.source, self.target)

    @cached_property
    def executor(self) -> Executor:
        executor: Executor = self._create("executor", self.config.executor)
        return executor

    @cached_property
    def device(self) -> torch.device:
        """Where the run computes."""
        name = self.config.run.device
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            device = torch.empty(0, device=name).device
            if device.type == "meta":
                raise RuntimeError("it holds no numbers")
            return device
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError([f'run.device: "{name}" cannot be used: {reason}; use "auto" or "cpu"']) from error

    def translator(self, seed: int) -> Translator:
        """The run's own translator, new, its weights drawn from `seed`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            translator: Translator = self._create("translator", self.config.translator, self.source, self.target)
            if isinstance(translator, LearnedTranslator):
                self._add_families(translator)
        return translator

    def _add_families(self, translator: LearnedTranslator) -> None:
        try:
            for target in self.targets():
                translator.add_family(target)
        except SpecMismatch as error:
            raise ConfigError([f"training.targets: {error}"]) from error

    def objectives(self, runner: Runner | None = None) -> list[tuple[float, Objective]]:
        """Each objective with its weight, for the run's own blocks or those of another runner."""
        return [(p.weight, self._create("objective", p, runner or self.runner)) for p in self.config.objectives]

    def sizes(self) -> Iterator[BlockAdapter]:
        """The target block at the further sizes that the translator is trained on."""
        target = self.config.target
        for options in self.config.training.sizes if self.config.training else ():
            yield self._further(target.name, target.options | options)

    def targets(self) -> Iterator[BlockAdapter]:
        """The target blocks of other families that the translator is trained on too."""
        for part in self.config.training.targets if self.config.training else ():
            yield self._further(part.name, part.options)

    def _further(self, name: str, options: dict[str, Any]) -> BlockAdapter:
        adapter: BlockAdapter = self.registry.create("block_adapter", name, **options)
        check_fit("target block", adapter, self.task.slot, self.task.leaving())
        return adapter

    def augmenters(self) -> list[tuple[str, Augmenter]]:
        """Each augmenter with what it changes: `source`, `target` or `both`."""
        return [(p.on, self._create("augmenter", p)) for p in self.config.augmenters]

    def rivals(self) -> dict[str, Rival]:
        """The rivals by name."""
        return {p.name: self._create("rival", p) for p in self.config.evaluation.rivals}

    def metrics(self) -> dict[str, Metric]:
        """What is measured beside the task's own metric, by name."""
        return {p.name: self._create("metric", p) for p in self.config.evaluation.metrics}

    def sections(self) -> list[ReportSection]:
        """Further sections of the run's page."""
        return [self._create("report_section", p) for p in self.config.evaluation.sections]

    def methods(self) -> dict[str, Method]:
        """The methods beside the run's own translator, by label."""
        return {part.label: self._method(part) for part in self.config.evaluation.methods}

    @property
    def going_on(self) -> set[str]:
        """Labels of the methods that go on from what the run's own translator wrote."""
        return {part.label for part in self.config.evaluation.methods if part.translator is None}

    def _method(self, part: MethodConfig) -> Method:
        chain = [part.translator, *part.then] if part.translator else part.then
        translators = [self._create("translator", component, self.source, self.target) for component in chain]
        return Method(translators, self._create("probe", part.probes) if part.probes else None)

    def check(self, where: str) -> None:
        """Create everything and see that shapes fit.

        Args:
            where: What messages begin with.

        Raises:
            ConfigError: all that does not fit.
        """
        problems = []
        try:
            _ = self.metric
        except (SpecMismatch, UnknownName) as error:
            problems.append(f"{where}: task: metric: {error}")
        for path, adapter in (("source", self.source), ("target", self.target)):
            try:
                check_fit(f"{path} block", adapter, self.task.slot, self.task.leaving())
            except SpecMismatch as error:
                problems.append(f"{where}: {path}: {error}")
        if problems:
            raise ConfigError(problems)
        needing = [
            p.name for p, (_, o) in zip(self.config.objectives, self.objectives(), strict=True) if o.needs_targets
        ]
        zoo = self.config.zoo
        if needing and zoo.target_hosts < zoo.train:
            problems.append(
                f"{where}: zoo.pairs: {zoo.target_hosts} of {zoo.train} training hosts, but objective "
                f"{', '.join(needing)} needs a trained target in each; leave zoo.pairs out"
            )
        if needing and zoo.snapshots:
            problems.append(
                f"{where}: zoo.snapshots: have no trained target, but objective {', '.join(needing)} needs one in each "
                "host; leave zoo.snapshots out"
            )
        problems += [f"{where}: {problem}" for problem in self._untranslatable()]
        try:
            _ = self.device
        except ConfigError as error:
            problems += [f"{where}: {problem}" for problem in error.problems]
        _ = self.executor, self.augmenters(), self.rivals(), self.metrics(), self.sections()
        if problems:
            raise ConfigError(problems)

    def _untranslatable(self) -> Iterator[str]:
        """What no method can do to two untrained hosts, so that it is found before anything is trained."""
        hosts = host_runner.untrained(self.task, self.source, [0, 1])
        if self.config.translator is not None:
            try:
                translator = self.translator(seed=0)
                if isinstance(translator, LearnedTranslator):
                    translator.start(self.source.read(hosts.source), Context(hosts, self.runner))
                    yield from self._unfit("training.sizes", self.sizes(), translator)
                    yield from self._unfit("training.targets", self.targets(), translator)
                Method([translator], None).check(hosts, self.runner)
            except ConfigError as error:
                yield from error.problems
            except SpecMismatch as error:
                yield f"translator: {error}"
        for i, part in enumerate(self.config.evaluation.methods):
            try:
                method = self._method(part)
                if part.translator is not None:
                    method.check(hosts, self.runner)
            except SpecMismatch as error:
                yield f"evaluation.methods.{i}: {error}"

    def _unfit(self, path: str, targets: Iterable[BlockAdapter], translator: LearnedTranslator) -> Iterator[str]:
        """What hinders training on further target blocks."""
        translators, needing = (
            [],
            [p.name for (_, o), p in zip(self.objectives(), self.config.objectives, strict=True) if o.needs_targets],
        )
        try:
            translators = [translator.resized(self.source, target) for target in targets]
        except ConfigError as error:
            yield from (f"{path}: {problem}" for problem in error.problems)
        except SpecMismatch as error:
            yield f"{path}: {error}"
        if translators and needing:
            yield f"{path}: objective {', '.join(needing)} needs a trained target, which these have not"

    def _create(self, kind: str, part: Any, *args: Any) -> Any:
        return self.registry.create(kind, part.name, *args, **part.options)


def metric_of(task: Task, registry: Registry) -> Metric:
    """The metric that a task names, or its own score.

    Args:
        task: The task.
        registry: Where metrics are found by name.

    Raises:
        SpecMismatch: there is no such metric, or the task neither names one nor scores by itself.
        ConfigError: its options are wrong.
    """
    if task.metric is None:
        if type(task).score is Task.score:
            raise SpecMismatch(f"{type(task).__name__} names none, and has no `score` of its own; give it one of them")
        return OwnScore(task.score)
    options = _metric_table(task)
    metric: Metric = registry.create("metric", options.pop("name"), **options)
    return metric


def _metric_table(task: Task) -> dict[str, Any]:
    return {"name": task.metric} if isinstance(task.metric, str) else dict(task.metric or {})
