"""A run's folder: who works in it, which config it belongs to, and what is kept there."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from math import nan
from pathlib import Path
from typing import Any, Literal, TypeVar

from filelock import Timeout
from pydantic import BaseModel, ValidationError

from paramtrans.api.records import EVALUATION_FORMAT, RUN_FORMAT, Evaluation, History, MadeOf, RunRecord
from paramtrans.config.schema import ELSEWHERE, Config
from paramtrans.errors import Damaged, StoreError, printable
from paramtrans.runs import environment
from paramtrans.runs.environment import versions as versions
from paramtrans.storage import files, json_files, locks, names
from paramtrans.utils import documents
from paramtrans.zoo import fingerprint

RESULTS = ("translator", "tensorboard", "evaluation.json", "metrics.jsonl", "report.html")
"""Files and folders that a run leaves."""
OTHERWISE = "set run.dir to another folder"
AGAIN = f"use --fresh to start over, or {OTHERWISE}"

logger = logging.getLogger(__name__)


class RunFolder:
    """`run.json`, `metrics.jsonl`, `evaluation.json`, `report.html`, `translator/` and `checkpoint/` while training."""

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self.path, self.config = path, config
        self.device = ""
        """What was computed on, for the record: `cpu`, or a GPU's name."""
        self._told = False
        self.seconds: dict[str, float] = {}
        """Wall-clock time of each stage, over all interruptions."""
        self.outdated = 0
        """Shards of the zoo that are no newer are trained again (`--fresh`); 0: none."""
        self.made_of: dict[str, Any] = {}
        """What the code of the blocks computes (`zoo.fingerprint`), so that no run goes on with other."""
        self.started = datetime.now(UTC).isoformat(timespec="seconds")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes out of the folder.

        Raises `StoreError` where one is in it, it may not be written, or it holds what no run of ours left there.
        """
        try:
            with locks.locked(self.path, OTHERWISE, timeout=0):
                self._check_ours()
                files.tidy(self.path, self.checkpoint, self.file("translator"))
                with files.no_links_below(self.path):
                    yield
        except Timeout as error:
            raise StoreError(f"{self.path}: another process works on this run; wait for it, or set run.dir") from error

    def resume(self) -> Evaluation | None:
        """Take up what is in the folder: the evaluation if the run is finished, else None.

        Raises `StoreError` if the folder holds a run of another config, or of a later version of the format.
        """
        if not files.exists(self.file("run.json")):
            return None
        record = read_record(self.file("run.json"), AGAIN)
        if different := sorted(_differences(_identity(_completed(record.config)), _identity(self.config))):
            raise StoreError(
                f"{self.path}: holds a run of another config (different: {', '.join(different[:5])}); "
                "set run.dir to another folder, or use --fresh to start over here, zoo included"
            )
        if other := fingerprint.difference(record.made_of.document(), self.made_of):
            raise StoreError(f"{self.path}: holds a run of other code: {other}; {AGAIN}")
        if (newer := environment.other_versions(record.versions)) and not self._told:
            logger.warning("%s: was begun with %s; numbers may differ", self.path, ", ".join(newer))
        self._told = True
        self.seconds, self.started, self.outdated = record.seconds, record.started, record.outdated
        if self.outdated > time.time_ns():
            logger.warning("%s: was started over at a time to come; shards that are there are used", self.path)
            self.outdated = 0
        if record.status != "finished":
            return None
        self._check_results(record.files)
        return _evaluation(self.file("evaluation.json"), AGAIN)

    def clear(self) -> None:
        """Forget what earlier runs left; files of others stay. `run.json`, which says whose they are, goes last."""
        for name in ("checkpoint", *RESULTS, "run.json"):
            files.remove(self.file(name))

    def drop_checkpoint(self) -> None:
        files.remove(self.checkpoint)

    @property
    def checkpoint(self) -> Path:
        """The folder from which an interrupted training goes on."""
        return self.file("checkpoint")

    def file(self, name: str) -> Path:
        return self.path / name

    def write_metrics(self, epochs: list[dict[str, float]]) -> None:
        """One line for each epoch."""
        lines = [
            documents.text(documents.finite({"epoch": number, **metrics})[0]) + "\n"
            for number, metrics in enumerate(epochs, 1)
        ]
        files.write_bytes(self.file("metrics.jsonl"), "".join(lines).encode())

    def write_evaluation(self, evaluation: Evaluation) -> Evaluation:
        """Write and return what was found, with null for numbers that are not finite, which is said."""
        kept, lost = documents.finite(evaluation.document())
        path = self.file("evaluation.json")
        if lost:
            logger.warning("%s: null for %d numbers that are not finite, such as %s", path, len(lost), lost[0])
        json_files.write_json(path, kept)
        return Evaluation.model_validate(kept)

    def write_record(self, status: Literal["running", "finished"], plugins: list[str]) -> RunRecord:
        """Write and return `run.json`: all that is needed to know what was run, and with what."""
        record = RunRecord(
            format=RUN_FORMAT,
            name=names.nearest(self.path.name),
            status=status,
            started=self.started,
            config=self.config,
            seconds=self.seconds,
            outdated=self.outdated,
            versions=versions(),
            machine=environment.machine(self.device),
            plugins=[printable(plugin) for plugin in plugins],  # some are paths, and not every path is text
            made_of=MadeOf.model_validate(self.made_of),
            files=self._results() if status == "finished" else {},
        )
        json_files.write_sealed(self.file("run.json"), record.document())
        return record

    def _check_ours(self) -> None:
        """Nothing is written through a link, and nothing of others is taken for a run's and overwritten."""
        names = ("checkpoint", *RESULTS)
        for name in (*names, "run.json"):
            if self.file(name).is_symlink():
                raise StoreError(f"{self.file(name)}: is a symbolic link, and might lead anywhere; {OTHERWISE}")
        present = [name for name in names if self.file(name).exists()]
        if present and not self.file("run.json").exists():
            raise StoreError(f"{self.path}: holds {', '.join(present)}, but no run.json; {OTHERWISE}")

    def _results(self) -> dict[str, str]:
        """The checksum of each file of the results, by its path below the folder."""
        roots = [self.file(name) for name in RESULTS]
        paths = [path for root in roots for path in ([root] if root.is_file() else root.rglob("*")) if path.is_file()]
        return {path.relative_to(self.path).as_posix(): files.checksum(path) for path in sorted(paths)}

    def _check_results(self, recorded: dict[str, str]) -> None:
        """Refuse a changed evaluation, from which the run answers; report any other result that was changed."""
        checksums = self._results()
        for name in sorted(name for name, checksum in recorded.items() if checksums.get(name) != checksum):
            what = f"{self.file(name)}: " + ("was changed after it was written" if name in checksums else "is missing")
            if name == "evaluation.json":
                raise StoreError(f"{what}; {AGAIN}")
            logger.warning("%s; the run answers without it", what)


def read_finished(folder: Path) -> tuple[RunRecord, Evaluation]:
    """The record and the evaluation of a finished run; raises `StoreError` where there is none in the folder."""
    otherwise = "give the folder of a finished run"
    record = read_record(folder / "run.json", otherwise)
    path = folder / "evaluation.json"
    if record.status != "finished":
        raise StoreError(f"{folder}: the run is not finished; {otherwise}")
    if not files.exists(path):
        raise StoreError(f"{path}: is missing; {otherwise}")
    if record.files and files.checksum(path) != record.files.get(path.name):
        raise StoreError(f"{path}: was changed after it was written; {otherwise}")
    return record, _evaluation(path, otherwise)


def history(folder: Path) -> History:
    """How the translator of a finished run was trained, as its training told it."""
    _, evaluation = read_finished(folder)
    training, costs = evaluation.training, evaluation.break_even
    if training is None or costs is None:
        raise StoreError(f"{folder}: its translator learned nothing; use --fresh to make the run anew")
    lines = json_files.read_numbers(folder / "metrics.jsonl", "use --fresh to make the run anew")
    epochs = [{key: nan if value is None else value for key, value in line.items() if key != "epoch"} for line in lines]
    return History(epochs, training.best_epoch, training.best_select, costs.training_seconds)


Checked = TypeVar("Checked", bound=BaseModel)


def read_record(path: Path, otherwise: str, sealed: bool = False) -> RunRecord:
    """`run.json`, held to its checksum where its format has one; `sealed`: it must have one.

    Raises `StoreError` where it is not what was written, or of a later version; `otherwise` is what to do then.
    """
    document = _document(path, (1, RUN_FORMAT), otherwise)
    try:
        if sealed or document.get("format") == RUN_FORMAT or json_files.SEAL in document:
            document = json_files.unsealed(path, document)
    except Damaged as error:
        raise StoreError(f"{error}; {otherwise}") from error
    return _checked(path, document, RunRecord, otherwise)


def _evaluation(path: Path, otherwise: str) -> Evaluation:
    return _checked(path, _document(path, (1, EVALUATION_FORMAT), otherwise), Evaluation, otherwise)


def _document(path: Path, formats: tuple[int, ...], otherwise: str) -> dict[str, Any]:
    """A JSON object of one of these formats."""
    if not files.exists(path):
        raise StoreError(f"{path}: is missing; {otherwise}")
    try:
        document = json_files.read_json(path)
    except Damaged as error:
        raise StoreError(f"{error}; {otherwise}") from error
    if not isinstance(document, dict):
        raise StoreError(f"{path}: is not what was written there; {otherwise}")
    json_files.check_format(path, document.get("format"), formats, otherwise)
    return document


def _checked(path: Path, document: dict[str, Any], model: type[Checked], otherwise: str) -> Checked:
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))[:200]
        raise StoreError(f"{path}: {where}: {first['msg']}: is not what was written there; {otherwise}") from error


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    """A config that was written by an earlier version, with the defaults of what was added since."""
    try:
        return Config.model_validate(config).model_dump(mode="json")
    except ValidationError:
        return config


def _identity(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in ELSEWHERE}


def _differences(first: Any, second: Any, path: str = "") -> Iterator[str]:
    """Dotted paths at which two configs differ; what is empty counts as absent, so that options may be added."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in first.keys() | second.keys():
            yield from _differences(first.get(key), second.get(key), f"{path}.{key}" if path else str(key))
    elif (first or second) and first != second:
        yield path
