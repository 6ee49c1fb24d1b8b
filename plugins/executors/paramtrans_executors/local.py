"""Shards one after the other in this process; each uses all of the machine's cores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from paramtrans.protocols import Executor
from paramtrans.zoo import do_job


class Local(Executor):
    """Trains shards in order."""

    def run(self, jobs: Sequence[dict[str, Any]], progress: Callable[[int], None]) -> None:
        for job in jobs:
            do_job(job, progress)
