"""Jobs: what an executor is given, and sends to other processes and machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from paramtrans.api.specs import PluginSource


class Job(BaseModel):
    """One shard of a zoo, to be trained anywhere; doing it twice writes the same file.

    As JSON it is `job.model_dump_json()`, and `Job.model_validate_json(text)` reads it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: Literal[1, 2]
    """Of the zoo: whole hosts, or target blocks in them."""
    role: str
    """What its hosts are for: `train`, `select`, `report`, or a snapshot of those to train."""
    start: int
    stop: int
    """Its hosts are those from `start` to before `stop`."""
    hosts: Path
    """The shard of step 1 that step 2 reads."""
    file: Path
    """Where the shard is written."""
    snapshots: dict[str, Path]
    """By role, where its hosts are written as they were on the way."""
    cache: Path
    """Where the task's data are kept."""
    plugins: PluginSource
    """The plugins that the config's components come from."""
    given: bool
    """Whether the hosts are not trained but read from `zoo.report_from`."""
    config: dict[str, Any]
    """The resolved config, as JSON."""
    begin: tuple[Literal["around", "further"], Path] | None = None
    """What step 1 begins with, and the file of hosts that it is taken from."""
