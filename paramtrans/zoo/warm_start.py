"""What step 1 begins with, where that is hosts of another zoo: all of them, or source blocks that stay frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from paramtrans.api.job import Job
from paramtrans.api.stacking import Params, take
from paramtrans.storage import sealed_params

CHECKSUM = "begin_sha256"
"""In a shard's record: that of the file of hosts it began with."""


def of_job(job: Job, count: int) -> tuple[Params | None, frozenset[str]]:
    """Tensors that the first `count` hosts of a job begin with, and the parts that stay as they are."""
    if job.begin is None:
        return None, frozenset()
    how, path = job.begin
    hosts = take(sealed_params.load_params(path)[0], range(count))
    if how == "further":
        return hosts, frozenset()
    return {name: tensor for name, tensor in hosts.items() if name.startswith("source.")}, frozenset({"source"})


def recorded(job: Job) -> dict[str, str]:
    """What a job's record says of it."""
    return {CHECKSUM: _checksum(job.begin[1])} if job.begin else {}


def is_recorded(record: dict[str, Any], hosts: Path) -> bool:
    """Whether a record says that it began with the hosts that stand in this file now."""
    return record.get(CHECKSUM) == _checksum(hosts)


def _checksum(path: Path) -> str:
    """As the file's own record has it; empty where there is none."""
    return str(sealed_params.load_record(path)["sha256"]) if sealed_params.record_path(path).exists() else ""
