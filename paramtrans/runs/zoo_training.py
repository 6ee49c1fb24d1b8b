"""Steps 1 and 2 of a run: the shards that are missing are trained, and plugins are told how far that is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from paramtrans.api.executor import Executor
from paramtrans.api.job import Job
from paramtrans.api.specs import RunInfo
from paramtrans.plugins.manager import Plugins
from paramtrans.runs.folder import RunFolder
from paramtrans.storage import files, locks, sealed_params
from paramtrans.utils.progress import Reporter
from paramtrans.zoo.zoo import Zoo

CACHE_HINT = "set run.cache to another folder"
PATIENCE = 0.1
"""Seconds between two looks at which shards have been written."""


class ZooTraining:
    """Trains the missing shards of a run's zoos."""

    def __init__(
        self, executor: Executor, reporter: Reporter, plugins: Plugins, run: RunInfo, folder: RunFolder
    ) -> None:
        self.executor, self.reporter, self.plugins = executor, reporter, plugins
        self.run, self.folder = run, folder

    def train(self, zoo: Zoo, step: int) -> None:
        """Train the shards of a step that are not there yet. Runs that share a zoo take turns."""
        folder, _ = zoo.folder(step)
        with locks.locked(folder, CACHE_HINT):
            shards = folder / "hosts" if step == 1 else folder
            files.tidy(folder, shards, *shards.glob("*/"))  # those of given hosts are one folder deeper
            zoo.write_recipe(step)
            jobs = zoo.missing(step, self.folder.outdated)
            self.plugins.notify("paramtrans_zoo_started", run=self.run, step=step, shards=len(jobs))
            if jobs:
                self._train(zoo, step, jobs)
            self.plugins.notify("paramtrans_zoo_finished", run=self.run, step=step)

    def _train(self, zoo: Zoo, step: int, jobs: Sequence[Job]) -> None:
        training = zoo.config.zoo.step1 if step == 1 else zoo.config.zoo.step2
        steps = len(jobs) * training.length(len(zoo.builder.task.split("train")))
        count = sum(job.stop - job.start for job in jobs)
        what = f"step {step}: {count} {'whole hosts' if step == 1 else 'target blocks'}"
        watch = ShardWatch(jobs, self._finished)
        with self.reporter.stage(what, steps) as stage:

            def progress(done: int) -> None:
                stage.advance(done)
                watch.look()

            self.executor.run(jobs, progress)
        watch.look(at_once=True)

    def _finished(self, job: Job, left: int) -> None:
        self.plugins.notify("paramtrans_shard_finished", run=self.run, job=job, left=left)


class ShardWatch:
    """Notices shards as they are written, whoever writes them and wherever."""

    def __init__(self, jobs: Sequence[Job], finished: Callable[[Job, int], None]) -> None:
        """`finished` is called with each job once its shard is there, and with the number of those that are left."""
        self._before = {job.file: sealed_params.written(job.file) for job in jobs}
        self._left, self._finished = list(jobs), finished
        self._looked = time.monotonic()

    def look(self, at_once: bool = False) -> None:
        """Look for new shards; not more often than is worth while, unless `at_once`."""
        if not at_once and time.monotonic() < self._looked + PATIENCE:
            return
        for job in [job for job in self._left if sealed_params.written(job.file) != self._before[job.file]]:
            self._left.remove(job)
            self._finished(job, len(self._left))
        self._looked = time.monotonic()
