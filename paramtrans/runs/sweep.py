"""Sweeps: one config, several runs that differ in a few values, and one table and one figure of all of them."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from paramtrans.api import options
from paramtrans.api.options import BaseOptions
from paramtrans.config import loading, merge, schema
from paramtrans.errors import ConfigError, DataError
from paramtrans.plugins.manager import Plugins
from paramtrans.report import sweep
from paramtrans.report.sweep import FIGURES, Row
from paramtrans.runs.run import Run, RunResult
from paramtrans.storage import json_files
from paramtrans.storage.cache import at_home
from paramtrans.utils import distributed
from paramtrans.utils.progress import Reporter

if TYPE_CHECKING:
    from rich.table import Table

FORMAT = 1
"""Version of `sweep.json`."""
MOST = 1000
"""Runs of one sweep, at most."""

logger = logging.getLogger(__name__)


class SweepOptions(BaseOptions):
    """The table `[sweep]` of a config. Every case is combined with every combination of the lists."""

    over: dict[str, Any] = Field(default_factory=dict)
    """Values of the config with a list of what each should be: `translator.dropout = [0.0, 0.1]`."""
    cases: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """By name, tables that are laid over the config."""
    columns: tuple[str, ...] = ("translated", "random_init", "trained_target")
    """Columns of the table: methods, or facts of a run such as `parameters`, `flops`, `loss`."""
    figure: str = Field("accuracies", pattern=f"^({'|'.join(FIGURES)})$")
    """The figure: `accuracies`, `gain` (over random initialisation), or curves of all runs: `loss`, or `training` (loss
    and accuracy)."""
    optional: tuple[str, ...] = ()
    """Cases that are left out, with a warning, where their data cannot be had."""


@dataclass(frozen=True)
class Member:
    """One run of a sweep."""

    name: str
    """Also the name of its folder."""
    values: dict[str, Any]
    """What distinguishes it: its case, and the value of each dotted path that the sweep runs over."""
    document: dict[str, Any]


def is_sweep(path: Path) -> bool:
    """Whether a config file holds several runs; raises `ConfigError` where it cannot be read."""
    return "sweep" in merge.read(path)


def expand(document: Mapping[str, Any], settings: Sequence[str], where: str) -> list[Member]:
    """The runs of a settled document, in order: cases first, then the last list changes fastest."""
    options_ = options.validate(SweepOptions, document["sweep"], f"{where}: sweep")
    rest = {key: value for key, value in document.items() if key != "sweep"}
    axes = dict(_axes(options_.over, where))
    if clash := [s for s in settings if merge.key_of(s) in axes]:
        raise ConfigError([f"--set {s}: the sweep runs over it; set sweep.over.{merge.key_of(s)}" for s in clash])
    rest_of_settings = [s for s in settings if not merge.key_of(s).startswith(("sweep.", "scale"))]
    members: list[Member] = []
    for case in options_.cases or {"": {}}:
        for values in itertools.product(*axes.values()):
            chosen = dict(zip(axes, values, strict=True))
            merged = merge.merge(rest, options_.cases.get(case, {}))
            for path, value in chosen.items():
                merged = merge.put(merged, path.split("."), value, f"{where}: sweep.over.{path}")
            name = _name([*([case] if case else []), *values], {member.name for member in members})
            first = {"case": case} if case else {}
            members.append(Member(name, {**first, **chosen}, merge.override(merged, rest_of_settings)))
            if len(members) > MOST:
                raise ConfigError([f"{where}: sweep: more than {MOST} runs; leave out some values"])
    return members


class Sweep:
    """All runs of one config file with a `[sweep]`. They share zoos; each has an ordinary run's folder."""

    def __init__(
        self, path: Path, settings: Sequence[str], reporter: Reporter, loaded: Plugins, folder: Path | None = None
    ) -> None:
        where, read = str(path), merge.read(path)
        document = merge.settle(read, settings, where)
        if "sweep" not in document:
            raise ConfigError([f"{where}: sweep: required, but not given"])
        self.name, self.reporter, self.where = path.stem, reporter, where
        self.members = expand(document, settings, where)
        self.options = options.validate(SweepOptions, document["sweep"], f"{where}: sweep")
        self.trained: dict[str, Path] = {}
        """The folder of the first run with each training key."""
        self.folder = folder or at_home(_dir(document) or f"runs/{path.stem}", "set run.dir to a folder")
        self.runs: list[Run] = []
        for member, config in zip(self.members, self._configs(loaded), strict=True):
            alike = [
                run.builder for run in self.runs if (run.config.task, run.config.target) == (config.task, config.target)
            ]
            like = alike[0] if alike else self.runs[0].builder if self.runs else None
            self.runs.append(Run(config, member.name, reporter, loaded, f"{where} [{member.name}]", like))

    def check(self) -> None:
        """See that every run can be made; raises `ConfigError` with all that cannot."""
        _all_at_once((run.where, run.check) for run in self.runs)

    def do(self, fresh: bool = False) -> SweepResult:
        """All runs in order; finished ones answer from their folders, and an interrupted one goes on."""
        self.check()
        leads = distributed.process_group().leads
        if fresh and leads:
            self._forget()
        rows = []
        for number, (member, run) in enumerate(zip(self.members, self.runs, strict=True), 1):
            with self.reporter.stage(f"[{number}/{len(self.runs)}] {member.name}", 1) as stage:
                result = self._run_member(member, run)
                stage.advance()
            if result is not None:
                rows.append(row(member, result))
            if leads:
                self._write(rows)
        return SweepResult(self.folder, self.name, rows, self.options)

    def _run_member(self, member: Member, run: Run) -> RunResult | None:
        """One run; None where its data cannot be had, and that is no matter. What several learn is learned once."""
        if member.values.get("case") in self.options.optional:
            try:
                run.zoos.prepare(run.cache)
            except DataError as error:
                logger.warning("%s is left out: %s", member.name, error)
                return None
        training_key = run.training_key()
        result = run.do(fresh=False, earlier=self.trained.get(training_key) if training_key else None)
        if training_key:
            self.trained.setdefault(training_key, result.dir)
        return result

    def _configs(self, loaded: Plugins) -> list[schema.Config]:
        """The config of each member; what is wrong with several of them is told once."""
        registry, configs, problems = loaded.registry(), [], dict[str, str]()
        for member in self.members:
            document = merge.put(member.document, ["run", "dir"], str(self.folder / member.name), self.where)
            try:
                configs.append(loading.validate(loading.located(Path(self.where), document), registry, ""))
            except ConfigError as error:
                for problem in error.problems:
                    problems.setdefault(problem.removeprefix(": "), member.name)
        if problems:
            raise ConfigError([f"{self.where} [{member}]: {problem}" for problem, member in problems.items()])
        return configs

    def _forget(self) -> None:
        """Start over: every run's results, and each zoo once."""
        for run in self.runs:
            with run.folder.locked():
                run.start_over()

    def _write(self, rows: list[Row]) -> None:
        json_files.write_json(self.folder / "sweep.json", {"format": FORMAT, "name": self.name, "runs": rows})
        sweep.write(self.folder, self.name, rows, self.options.columns, self.options.figure)


@dataclass(frozen=True)
class SweepResult:
    """What the finished runs of a sweep found."""

    dir: Path
    name: str
    rows: list[Row]
    options: SweepOptions

    def as_dict(self) -> dict[str, Any]:
        """The object that `paramtrans run --json` prints."""
        return {"sweep_dir": str(self.dir), "runs": self.rows}

    def table(self) -> Table:
        """A line for each run, for a terminal."""
        return sweep.table(self.name, self.rows, self.options.columns)


def row(member: Member, result: RunResult) -> Row:
    """What `sweep.json` keeps of a run; the accuracies of single hosts stay in the run's own folder."""
    kept = {key: value for key, value in result.evaluation.document().items() if key not in ("format", "hosts")}
    return {"name": member.name, "values": member.values, "dir": member.name, "seconds": result.seconds, **kept}


def _axes(over: Mapping[str, Any], where: str, path: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Dotted path and values of each list; tables may be nested, or their paths quoted."""
    for key, value in over.items():
        full = f"{path}{key}"
        if isinstance(value, dict):
            yield from _axes(value, where, f"{full}.")
        elif isinstance(value, list) and value:
            yield full, value
        else:
            raise ConfigError([f"{where}: sweep.over.{full}: expected a list of values, not {str(value)[:60]!r}"])


def _name(values: Sequence[Any], taken: set[str]) -> str:
    """A folder's name from the values of a run; one that is taken gets a number."""
    shown = (str(value.get("name", "")) if isinstance(value, dict) else str(value) for value in values)
    name = re.sub(r"[^\w.,=+-]+", "_", "-".join(shown)).strip(".")[:80] or "run"
    numbers = (f"{name}-{number}" for number in itertools.count(2))
    return next(n for n in itertools.chain([name], numbers) if n not in taken)


def _dir(document: Mapping[str, Any]) -> str | None:
    run = document.get("run")
    folder = run.get("dir") if isinstance(run, dict) else None
    return folder if isinstance(folder, str) else None


def _all_at_once(checks: Iterator[tuple[str, Any]]) -> None:
    """Do all checks, then raise what they found; the same finding of a later run is not told again."""
    problems: dict[str, str] = {}
    for where, check in checks:
        try:
            check()
        except ConfigError as error:
            for problem in error.problems:
                problems.setdefault(problem.removeprefix(f"{where}: "), problem)
    if problems:
        raise ConfigError(problems.values())
