"""Executors: where the shards of a zoo are trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from paramtrans.api.job import Job
from paramtrans.api.options import BaseOptions, Configurable


class Executor(Configurable, ABC):
    """Where the shards of a zoo are trained. Doing a job twice writes the same shard."""

    def __init__(self, options: BaseOptions) -> None:
        self.options = options

    @abstractmethod
    def run(self, jobs: Sequence[Job], progress: Callable[[int], None]) -> None:
        """Do all jobs through `paramtrans.zoo.do_job`.

        Args:
            jobs: One for each shard; in any order, and anywhere.
            progress: Called in this process with numbers of training steps done since its last call.

        Raises:
            ParamtransError: a job could not be done.
        """
