"""One shard of a zoo, trained or copied as its job says: a JSON document, so that it may be done anywhere."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from paramtrans._version import __version__
from paramtrans.api import stacking as params_
from paramtrans.api.stacking import Params
from paramtrans.builder import Parts
from paramtrans.config.schema import Config
from paramtrans.plugins.manager import components, plugins
from paramtrans.storage import files
from paramtrans.zoo import fingerprint, host_training, warm_start
from paramtrans.zoo.host_file import HostFile
from paramtrans.zoo.recipe import host_seed, hosts_digest, identity, trained_as

Report = Callable[[int], None]


@lru_cache(maxsize=1)
def _parts(config: str, cache: Path) -> Parts:
    """The components that a job's config names, with their data ready; kept from one shard to the next."""
    parts = Parts(Config.model_validate_json(config), components())
    parts.task.prepare(cache)
    return parts


def do_job(job: dict[str, Any], report: Report) -> None:
    """Train one shard and write it. `report` is called with the number of steps done since its last call."""
    for file in job["plugins"]:
        plugins().load_file(Path(file))
    parts = _parts(json.dumps(job["config"]), Path(job["cache"]))
    zoo, started = parts.config.zoo, time.monotonic()
    own = [host_seed(zoo.seed, job["role"], number) for number in range(job["start"], job["stop"])]
    told: dict[str, Any] = {}
    file = HostFile(Path(zoo.report_from)) if job["given"] and zoo.report_from else None
    if job["step"] == 1 and file:
        made = {job["role"]: file.hosts(job["start"], job["stop"])}
    elif job["step"] == 1:
        told = warm_start.told(job)
        made = _hosts(job, parts, own, report)
    else:
        whole, _ = files.load_params(Path(job["hosts"]))
        first = params_.take(whole, range(len(own)))
        told = {"hosts_sha256": hosts_digest(whole, len(own))}
        if file:
            target = file.targets(job["start"], job["stop"])
        else:
            target = host_training.train_targets(parts.task, parts.target, first, zoo.step2, own, parts.device, report)
        made = {job["role"]: target}
    made_by = {"paramtrans": __version__, "torch": torch.__version__, "device": str(parts.device)}
    told[fingerprint.KEY] = fingerprint.of(parts, job["step"])
    seconds = time.monotonic() - started
    for role, file_ in _files(job).items():
        record = {**identity(job["step"], role, job["start"], own), **told, "seconds": seconds, "made_by": made_by}
        files.save_params(Path(file_), made[role], record)
        seconds = 0.0  # what is kept on the way takes no more


def _files(job: dict[str, Any]) -> dict[str, str]:
    """By role, where a job writes its hosts."""
    return {job["role"]: job["file"], **job["snapshots"]}


def _hosts(job: dict[str, Any], parts: Parts, own: list[int], report: Report) -> dict[str, Params]:
    """By role, the hosts of step 1 as they were after their share of it."""
    begin, frozen = warm_start.of_job(job, len(own))
    options, kept = parts.config.zoo.step1, dict[int, Params]()
    length = options.length(len(parts.task.split("train")))
    at = {role: max(1, round(length * trained_as(role)[1])) for role in _files(job)}
    wanted, keep = set(at.values()), kept.__setitem__
    host_training.train_hosts(parts.task, parts.source, options, own, parts.device, report, begin, frozen, wanted, keep)
    return {role: kept[step] for role, step in at.items()}
