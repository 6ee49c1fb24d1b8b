"""One shard of a zoo, trained or copied as its job says, in whatever process that is."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from paramtrans._version import __version__
from paramtrans.api import stacking as params_
from paramtrans.api.job import Job
from paramtrans.api.specs import PluginSource
from paramtrans.api.stacking import Params
from paramtrans.builder import Builder
from paramtrans.config.schema import Config
from paramtrans.plugins.manager import registry_of
from paramtrans.storage import sealed_params
from paramtrans.zoo import fingerprint, host_training, warm_start
from paramtrans.zoo.host_file import HostFile
from paramtrans.zoo.recipe import Shard, hosts_digest, identity
from paramtrans.zoo.roles import trained_as

Report = Callable[[int], None]


@lru_cache(maxsize=1)
def _builder(config: str, cache: Path, plugins: PluginSource) -> Builder:
    """The components that a job's config names, with their data ready; kept from one shard to the next."""
    builder = Builder(Config.model_validate_json(config), registry_of(plugins))
    builder.task.prepare(cache)
    return builder


def do_job(job: Job, report: Report) -> None:
    """Train one shard and write it. Doing a job twice writes the same file.

    Args:
        job: The shard, and all that decides what is in it.
        report: Called with the number of steps done since its last call.

    Raises:
        StoreError: a file that it reads is damaged, or the shard cannot be written.
        TrainingError: a frozen part did not stay as it was.
    """
    builder = _builder(json.dumps(job.config), job.cache, job.plugins)
    zoo, started = builder.config.zoo, time.monotonic()
    shard = Shard(job.role, job.start, job.stop)
    seeds = shard.seeds(zoo.seed)
    recorded: dict[str, Any] = {}
    file = HostFile(Path(zoo.report_from)) if job.given and zoo.report_from else None
    if job.step == 1 and file:
        params = {job.role: file.hosts(job.start, job.stop)}
    elif job.step == 1:
        recorded = warm_start.recorded(job)
        params = _hosts(job, builder, seeds, report)
    else:
        whole, _ = sealed_params.load_params(job.hosts)
        first = params_.take(whole, range(len(seeds)))
        recorded = {"hosts_sha256": hosts_digest(whole, len(seeds))}
        if file:
            target = file.targets(job.start, job.stop)
        else:
            target = host_training.train_targets(
                builder.task, builder.target, first, zoo.step2, seeds, builder.device, report
            )
        params = {job.role: target}
    made_by = {"paramtrans": __version__, "torch": torch.__version__, "device": str(builder.device)}
    recorded[fingerprint.KEY] = fingerprint.of(builder, job.step)
    seconds = time.monotonic() - started
    for role, file_ in _files(job).items():
        which = identity(job.step, replace(shard, role=role), zoo.seed)
        record = {**which, **recorded, "seconds": seconds, "made_by": made_by}
        sealed_params.save_params(file_, params[role], record)
        seconds = 0.0  # what is kept on the way takes no more


def _files(job: Job) -> dict[str, Path]:
    """By role, where a job writes its hosts."""
    return {job.role: job.file, **job.snapshots}


def _hosts(job: Job, builder: Builder, seeds: list[int], report: Report) -> dict[str, Params]:
    """By role, the hosts of step 1 as they were after their share of it."""
    begin, frozen = warm_start.of_job(job, len(seeds))
    options, kept = builder.config.zoo.step1, dict[int, Params]()
    length = options.length(len(builder.task.split("train")))
    at = {role: max(1, round(length * trained_as(role)[1])) for role in _files(job)}
    wanted, keep = set(at.values()), kept.__setitem__
    host_training.train_hosts(
        builder.task, builder.source, options, seeds, builder.device, report, begin, frozen, wanted, keep
    )
    return {role: kept[step] for role, step in at.items()}
