"""Checks of executors, on two shards of a zoo that takes a second to train."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from paramtrans.api.adapter import check_fit
from paramtrans.api.job import Job
from paramtrans.api.task import Task
from paramtrans.builder import Builder
from paramtrans.config import loading, schema
from paramtrans.errors import DataError, ParamtransError, SpecMismatch, StoreError
from paramtrans.plugins.registry import Entry, Registry
from paramtrans.storage import files, sealed_params
from paramtrans.testing.check import CheckFailed, Subject, check, expect, named
from paramtrans.testing.samples import trials
from paramtrans.zoo.jobs import do_job
from paramtrans.zoo.zoo import Zoo

STEPS = 2


def _ours(registry: Registry, kind: str) -> list[Entry]:
    """Components that come with paramtrans, which any process that trains shards has."""
    return [entry for entry in registry.of_kind(kind) if entry.provider.distribution == "paramtrans"]


def _fitting(registry: Registry) -> tuple[dict[str, Any], dict[str, Any]]:
    """A task whose data is at hand, and a block that fits into its slot, each with its options."""
    block = _ours(registry, "block_adapter")[0]
    tried = trials(block.resolve(), "block_adapter")[0]
    for entry in _ours(registry, "task"):
        for options in trials(entry.resolve(), "task"):
            task: Task = registry.create("task", entry.name, **options)
            described = {**tried, "channels": task.slot.channels}
            try:
                adapter = registry.create("block_adapter", block.name, **described)
                check_fit("block", adapter, task.slot, task.leaving())
            except SpecMismatch:
                continue
            return {"name": entry.name, **options}, {"name": block.name, **described}
    raise DataError(f"no task that can be tried without help takes the block {block.name}")


def _config(registry: Registry, folder: Path) -> schema.Config:
    """A zoo of two hosts, a shard each."""
    task, adapter = _fitting(registry)
    length = {"steps": STEPS, "batch_size": 4}
    document = {
        "task": task,
        "source": adapter,
        "target": adapter,
        "zoo": {"train": 1, "select": 1, "report": 2, "pairs": 1, "shard": 1, "step1": length, "step2": length},
        "translator": _ours(registry, "translator")[0].name,
        "objectives": [_ours(registry, "objective")[0].name],
        "training": {"epochs": 1},
        "run": {"cache": str(folder / "cache"), "device": "cpu"},
    }
    return loading.validate(document, registry)


@contextmanager
def _jobs(subject: Subject) -> Iterator[list[Job]]:
    """Two jobs that are not done, in a folder that goes away."""
    with TemporaryDirectory() as folder:
        builder = Builder(_config(subject.registry, Path(folder)), subject.registry)
        yield Zoo(builder, Path(folder)).missing(step=1)[:2]


def _digest(job: Job) -> str | None:
    """Of the parameters in a job's file; None where there is none."""
    try:
        params, _ = sealed_params.load_params(job.file)
    except StoreError:
        return None
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in params.values())).hexdigest()


@check("executor")
def does_every_job(subject: Subject) -> None:
    """It writes every shard, bit for bit what `do_job` writes in this process; a second time too."""
    with _jobs(subject) as jobs:
        for job in jobs:
            do_job(job, lambda steps: None)
        wanted = [_digest(job) for job in jobs]
        for job in jobs:
            files.remove(job.file)
            files.remove(sealed_params.record_path(job.file))
        for time in ("first", "second"):
            subject.create().run(jobs, lambda steps: None)
            digests = [_digest(job) for job in jobs]
            wrong = [j.file.name for j, a, b in zip(jobs, wanted, digests, strict=True) if a != b]
            expect(not wrong, f"every shard the {time} time", f"{named(wrong)} missing or another")


@check("executor")
def tells_how_far_it_is(subject: Subject) -> None:
    """`progress` is told every step of every job, and nothing where there are no jobs."""
    steps: list[int] = []
    with _jobs(subject) as jobs:
        subject.create().run([], steps.append)
        expect(not steps, "no steps without jobs", steps)
        subject.create().run(jobs, steps.append)
    expect(sum(steps) == STEPS * len(jobs), f"{STEPS * len(jobs)} steps", sum(steps))


@check("executor")
def tells_what_fails(subject: Subject) -> None:
    """A job that cannot be done raises the error that `do_job` raises, or another that says it."""
    with _jobs(subject) as jobs:
        hosts = jobs[0].hosts.with_name("no-such-shard")
        job = jobs[0].model_copy(update={"step": 2, "hosts": hosts})
        try:
            subject.create().run([job], lambda steps: None)
        except ParamtransError as error:
            expect("no-such-shard" in str(error), "an error that names the file", str(error))
        else:
            raise CheckFailed("expected an error for a job that cannot be done; found none")
