"""A run: the stages, their order, what is already done. One config, one folder."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from paramtrans.api.records import BestOfAll, Evaluation, History, MeasuredBy, RunRecord
from paramtrans.api.specs import RunInfo
from paramtrans.api.translator import Translator
from paramtrans.builder import Builder
from paramtrans.config.schema import Config
from paramtrans.errors import ConfigError, StoreError
from paramtrans.evaluation.comparison import Comparison
from paramtrans.plugins.manager import Plugins, plugins
from paramtrans.report import findings
from paramtrans.runs import folder as run_folder, pages
from paramtrans.runs.folder import RunFolder
from paramtrans.runs.zoo_training import CACHE_HINT, ZooTraining
from paramtrans.storage import files, json_files
from paramtrans.storage.cache import at_home, cache_dir
from paramtrans.training.trainer import Trainer
from paramtrans.translators.base import LearnedTranslator
from paramtrans.translators.saving import load_translator, save_translator
from paramtrans.utils import distributed, memory, seeds
from paramtrans.utils.progress import Reporter
from paramtrans.utils.surroundings import pinned
from paramtrans.zoo import fingerprint
from paramtrans.zoo.collection import Zoos

if TYPE_CHECKING:
    from rich.table import Table

CALLS = ("train", "done")
"""What the process that leads tells the others."""


@dataclass(frozen=True)
class RunResult:
    """What a finished run found."""

    dir: Path
    seconds: dict[str, float]
    """Wall-clock time of each stage; a stage that found its work done took almost none."""
    evaluation: Evaluation
    """The content of `evaluation.json`: the metric of every method on every report host, costs, break-even."""

    @property
    def methods(self) -> dict[str, dict[str, Any]]:
        """For each method: `mean`, `ci95`, `min`, `max` of the task's metric, and `n` hosts."""
        return {name: method.document() for name, method in self.evaluation.methods.items()}

    def table(self) -> Table:
        """All methods, for a terminal."""
        return findings.table(self.evaluation)

    def as_dict(self) -> dict[str, Any]:
        """The object that `paramtrans run --json` prints."""
        kept = ("methods", "translator", "zoo", "blocks", "break_even")
        document, metric = self.evaluation.document(), self.evaluation.metric.model_dump()
        about = {"run_dir": str(self.dir), "seconds": self.seconds, "metric": metric}
        return about | {key: document[key] for key in kept}


def run(
    config: Config,
    name: str = "run",
    *,
    fresh: bool = False,
    reporter: Reporter | None = None,
    loaded: Plugins | None = None,
) -> RunResult:
    """Do what a config says, or go on where an earlier run of it stopped, or answer from its folder if it is finished.

    Processes that torchrun started train the translator together, and each gets the result.

    Args:
        config: What to do, validated.
        name: The folder below `runs/`, where the config gives none.
        fresh: Whether to start over, zoo included.
        reporter: What tells people how far it is; silent unless given.
        loaded: The plugins, also of processes that train shards; those of this environment unless given.

    Returns:
        The folder, seconds by stage, and the task's metric for all methods.

    Raises:
        ConfigError: components do not fit together.
        StoreError: the run's folder or the cache cannot be written, or holds what another config made.
        TrainingError: hosts or the translator diverge.
        StopRun: a plugin asks that the run ends; it goes on from there another time.

    >>> from paramtrans import config, plugins, run  # doctest: +SKIP
    >>> result = run(config.load(Path("examples/mnist_conv_to_conv.toml"), plugins.components()))  # doctest: +SKIP
    >>> result.methods["translated"]["mean"]  # doctest: +SKIP
    """
    if not isinstance(config, Config):
        given = f"run takes a validated config, not {type(config).__name__}"
        raise ConfigError([f"{given}; config.load(path, components()) gives one, or config.validate(document, …)"])
    return Run(config, name, reporter or Reporter(), loaded or plugins()).do(fresh)


class Run:
    """One run while it goes on."""

    def __init__(
        self,
        config: Config,
        name: str,
        reporter: Reporter,
        loaded: Plugins,
        where: str = "config",
        like: Builder | None = None,
    ) -> None:
        """`like` is the builder of another run, to take over what is the same."""
        self.config, self.reporter, self.plugins = config, reporter, loaded
        self.processes = distributed.process_group()
        self.where = where
        """What messages about the config begin with: its file."""
        registry = loaded.registry()
        self.builder = Builder(config, registry, like)
        self.cache = cache_dir(config.run.cache)
        with memory.out_of_memory_hint(where):
            self.zoos = Zoos(self.builder, self.cache, registry)
        self.zoo = self.zoos.main
        path = at_home(config.run.dir, "set run.dir to a folder") if config.run.dir else Path("runs") / name
        self.folder = RunFolder(path, config.model_dump(mode="json"))
        self.info = RunInfo(path.absolute(), self.folder.config)
        self._zoo_training = ZooTraining(self.builder.executor, self.reporter, loaded, self.info, self.folder)

    def check(self) -> None:
        """Raise `ConfigError` with all that does not fit, before anything is trained."""
        with memory.out_of_memory_hint(self.where):
            self.builder.check(self.where)
            _ = self.zoo.given
            if unfit := list(self.zoos.unfit()):
                raise ConfigError([f"{self.where}: {problem}" for problem in unfit])

    def training_key(self) -> str | None:
        """Runs with the same have the same translator; None where there is none, or where training looks further."""
        if self.config.translator is None or self.config.evaluation.paper_way:
            return None
        what = {key: value for key, value in self.config.identity().items() if key not in ("evaluation", "report")}
        zoo = {key: value for key, value in what["zoo"].items() if not key.startswith("report")}
        return json_files.digest({**what, "zoo": zoo})

    @pinned()
    def do(self, fresh: bool, earlier: Path | None = None) -> RunResult:
        """All stages, in order. `earlier` is the folder of a finished run with the same training key, taken over."""
        self.check()
        self.folder.made_of = fingerprint.of_blocks(self.builder)
        if not self.processes.leads:
            return self._train_along()
        finished = None if fresh else self.folder.resume()
        if finished is None:
            with self.folder.locked():
                finished = (None if fresh else self.folder.resume()) or self._stages(fresh, earlier)
        self._call("done")
        return RunResult(self.folder.path, self.folder.seconds, finished)

    def _call(self, what: str) -> str:
        """Tell the other processes what comes next; in these, hear it."""
        word = torch.tensor(CALLS.index(what) if self.processes.leads else 0)
        return CALLS[int(self.processes.follow(word))]

    def _train_along(self) -> RunResult:
        """In a process that does not lead: train the translator with the one that does, which does all the rest."""
        while self._call("") != "done":
            self.zoos.prepare(self.cache)
            translator = self._new_translator()
            assert isinstance(translator, LearnedTranslator)
            self._trainer(translator).run(lambda epoch, metrics: None)
        finished = self.folder.resume()
        if finished is None:
            raise StoreError(
                f"{self.folder.path}: the run is not here; set run.dir to a folder that all machines share"
            )
        return RunResult(self.folder.path, self.folder.seconds, finished)

    def start_over(self) -> None:
        """Forget what the run's folder holds and all shards there are now, also over interruptions to come."""
        self.zoos.check_again()
        self.folder.clear()
        self.folder.outdated = self.zoos.newest()
        self._record("running")

    def _stages(self, fresh: bool, earlier: Path | None) -> Evaluation:
        files.make_folder(self.cache, CACHE_HINT)
        self.zoos.prepare(self.cache)
        if fresh:
            self.start_over()
        self._record("running")
        self.plugins.notify("paramtrans_run_started", run=self.info)
        for step in (1, 2):
            with self._timed(f"zoo_step{step}"):
                for zoo in self.zoos.all:
                    self._zoo_training.train(zoo, step)
        with self._timed("training"):
            translator, history = self._take_over(earlier) if earlier else self._train_translator()
        with self._timed("evaluation"):
            reported = self.zoos.reported
            comparison = Comparison(reported.builder, translator, self.zoos.report(), self.zoos.pairs())
            comparison.run(self.reporter, reported.seconds_per_target())
            best = _best_of_all(history, self.config.evaluation.paper_way, reported.builder.measured_by)
            evaluation = comparison.result(history, self.zoos.seconds(), self.zoos.used(), self.zoos.diverged(), best)
        result = self.folder.write_evaluation(evaluation)
        with self._timed("report"):
            pages.write(self.folder, self._record("running"), result, history, comparison, self.builder.sections())
        finished = RunResult(self.folder.path, self.folder.seconds, result)
        self.plugins.notify("paramtrans_run_finished", run=self.info, result=finished.as_dict())
        self._record("finished")
        self.folder.drop_checkpoint()
        return result

    def _train_translator(self) -> tuple[Translator | None, History | None]:
        """Step 3: the run's own translator, if it has one, and its history, if it learned."""
        if self.config.translator is None:
            return None, None
        translator = self._new_translator()
        history = self._learn(translator) if isinstance(translator, LearnedTranslator) else None
        self._save(translator)
        return translator, history

    def _take_over(self, earlier: Path) -> tuple[Translator, History | None]:
        """The translator of another run, and its history."""
        translator = load_translator(earlier, self.builder.registry)
        self._save(translator)
        if not isinstance(translator, LearnedTranslator):
            return translator, None
        history = run_folder.history(earlier)
        self.folder.write_metrics(history.epochs)
        return translator.to(self.builder.device), history

    def _save(self, translator: Translator) -> None:
        assert self.config.translator is not None  # whose it is
        names = self.config.translator.name, self.config.source, self.config.target
        further = self.config.training.targets if self.config.training else ()
        save_translator(self.folder.file("translator"), translator, *names, further)

    def _new_translator(self) -> Translator:
        seed = self.config.training.seed if self.config.training else 0
        return self.builder.translator(seeds.derive(seed, "translator"))

    def _trainer(self, translator: LearnedTranslator) -> Trainer:
        of_task, *of_others = self.zoos.select()
        return Trainer(
            self.builder, translator, self.zoos.train(), of_task[1], self.folder.checkpoint, self.processes, of_others
        )

    def _learn(self, translator: LearnedTranslator) -> History:
        self._call("train")
        peeking = self.zoos.report() if self.config.evaluation.paper_way else None
        trainer, by = self._trainer(translator), self.builder.measured_by
        with self.reporter.stage("step 3: translator", trainer.options.epochs, trainer.begin()) as stage:

            def epoch_ended(epoch: int, metrics: dict[str, float]) -> None:
                select = f"  selection {by.shown(metrics['select'])}" if "select" in metrics else ""
                stage.advance(epoch - stage.done, f"loss {metrics['loss']:.4g}{select}")
                if peeking and "select" in metrics:
                    metrics["paper_way"] = trainer.value(peeking, "test", self.zoos.reported.builder)
                if "select" in metrics:
                    self.folder.write_metrics(trainer.history.epochs)  # so far
                self.plugins.notify("paramtrans_epoch_ended", run=self.info, epoch=epoch, metrics=metrics)

            history = trainer.run(epoch_ended)
        self.folder.write_metrics(history.epochs)
        return history

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        """Adds a stage's time to what earlier attempts at it took."""
        earlier, started = self.folder.seconds.get(stage, 0.0), time.monotonic()
        try:
            with memory.out_of_memory_hint(stage):
                yield
        finally:
            self.folder.seconds[stage] = round(earlier + time.monotonic() - started, 3)
            self._record("running")

    def _record(self, status: Literal["running", "finished"]) -> RunRecord:
        device = self.builder.device
        self.folder.device = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        return self.folder.write_record(status, [str(provider) for provider in self.plugins.providers()])


def _best_of_all(history: History | None, asked: bool, by: MeasuredBy) -> BestOfAll | None:
    if not asked or history is None:
        return None
    values = {epoch: metrics["paper_way"] for epoch, metrics in enumerate(history.epochs, 1) if "paper_way" in metrics}
    best = (max if by.higher_is_better else min)(values, key=lambda epoch: values[epoch])
    return BestOfAll(best=values[best], epoch=best, evaluations=len(values))
