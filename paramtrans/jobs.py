"""One shard of a zoo, trained or copied as its job says: a JSON document, so that it may be done anywhere."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

import paramtrans
from paramtrans import beginning, steps, store
from paramtrans import hosts as params_
from paramtrans.config import Config
from paramtrans.hostfile import HostFile
from paramtrans.parts import Parts
from paramtrans.plugins import components, plugins
from paramtrans.recipes import host_seed, hosts_digest, identity

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
    record = identity(job["step"], job["role"], job["start"], own)
    file = HostFile(Path(zoo.report_from)) if job["given"] and zoo.report_from else None
    if job["step"] == 1 and file:
        params = file.hosts(job["start"], job["stop"])
    elif job["step"] == 1:
        begin, frozen = beginning.of_job(job, len(own))
        record |= beginning.told(job)
        params = steps.train_hosts(parts.task, parts.source, zoo.step1, own, parts.device, report, begin, frozen)
    else:
        whole, _ = store.load_params(Path(job["hosts"]))
        first = params_.take(whole, range(len(own)))
        record["hosts_sha256"] = hosts_digest(whole, len(own))
        if file:
            params = file.targets(job["start"], job["stop"])
        else:
            params = steps.train_targets(parts.task, parts.target, first, zoo.step2, own, parts.device, report)
    made_by = {"paramtrans": paramtrans.__version__, "torch": torch.__version__, "device": str(parts.device)}
    store.save_params(Path(job["file"]), params, {**record, "seconds": time.monotonic() - started, "made_by": made_by})
