"""Shards as Ray tasks: scheduling, and trying again where a machine is lost, are Ray's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from pydantic import NonNegativeInt, PositiveInt

from paramtrans.api.executor import Executor
from paramtrans.api.job import Job
from paramtrans.api.options import BaseOptions, Trials
from paramtrans.errors import ConfigError, ParamtransError, TrainingError
from paramtrans.zoo import do_job


class RayOptions(BaseOptions):
    """Which cluster, and what a shard takes of it."""

    address: str | None = None
    """Of the cluster, as `ray.init` takes it; by default the one this process is connected to, else what `ray.init`
    finds, or a new local one. The process stays connected: starting Ray takes longer than many a shard."""
    cpus: PositiveInt = 1
    """Cores, and threads, for each shard."""
    gpus: NonNegativeInt = 0
    """GPUs for each shard; set `run.device` too."""
    retries: NonNegativeInt = 10
    """How often a shard is started again after its machine or process was lost."""


class Ray(Executor):
    """Trains shards on a Ray cluster. The cache must be a folder that all its machines share; each shard is written
    there by the machine that trained it."""

    Options: ClassVar[type[BaseOptions]] = RayOptions
    options: RayOptions
    trials: ClassVar[Trials] = ()
    """It needs Ray, and a cluster that answers."""

    def run(self, jobs: Sequence[Job], progress: Callable[[int], None]) -> None:
        if not jobs:
            return
        ray = _ray()
        if not ray.is_initialized():
            self._connect(ray)
        self._do_all(ray, jobs, progress)

    def _connect(self, ray: Any) -> None:
        try:
            ray.init(self.options.address, log_to_driver=False, configure_logging=False, include_dashboard=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError([f"executor.address: no Ray cluster at {self.options.address}: {reason}"]) from error

    def _do_all(self, ray: Any, jobs: Sequence[Job], progress: Callable[[int], None]) -> None:
        """Raises the error of the first shard that fails, and `TrainingError` where machines are lost for good."""
        options = self.options
        task = ray.remote(num_cpus=options.cpus, num_gpus=options.gpus, max_retries=options.retries)(train)
        pending = {task.remote(job, options.cpus): job for job in jobs}
        try:
            while pending:
                [done], _ = ray.wait(list(pending), num_returns=1)
                steps = ray.get(done)
                file = pending.pop(done).file
                if not file.exists():
                    raise TrainingError(
                        f"{file}: was trained on another machine, and is not here; "
                        "set run.cache to a folder that all machines of the cluster share"
                    )
                progress(steps)
        except ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, ParamtransError) else error) from error
        except ray.exceptions.RayError as error:
            reason = str(error).splitlines()[0]
            raise TrainingError(
                f"executor: a shard's machine was lost {options.retries + 1} times ({reason})"
            ) from error
        finally:
            for unfinished in pending:
                ray.cancel(unfinished, force=True)


def train(job: Job, threads: int) -> int:
    """One shard, on whatever machine this is; returns the number of its steps."""
    torch.set_num_threads(threads)
    steps: list[int] = []
    do_job(job, steps.append)
    return sum(steps)


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            ['executor: "ray" needs Ray; pip install "paramtrans[ray]", or use executor "local"']
        ) from error
    return ray
