"""Runs of the tiny task, each in a fork of this process, so that nothing is imported twice."""

from __future__ import annotations

import io
import json
import logging
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

SUPPORT = Path(__file__).parents[1] / "tests" / "support"
CONFIG, PLUGIN, RECORDER = SUPPORT / "tiny.toml", SUPPORT / "tiny_task.py", Path(__file__).with_name("recorder.py")
LIMIT = 300.0
"""Seconds after which a process counts as hanging."""


@dataclass(frozen=True)
class Ended:
    """How a process ended; `status` is negative for a signal, None for one that hung and was killed."""

    status: int | None
    out: str
    err: str
    megabytes: float
    """The most memory it held."""

    def refused(self, most_lines: int = 8) -> list[str]:
        """What is wrong with it as an answer to a user's mistake."""
        lines = self.err.strip().splitlines()
        problems = [] if self.status == 2 else [f"ended with {self.status}, not 2: {self.err[-300:]!r}"]
        problems += ["a traceback"] if "Traceback" in self.err else []
        return problems + ([] if 0 < len(lines) <= most_lines else [f"{len(lines)} lines of message"])


class Process:
    """A function, run in a fork of this process with its output in files."""

    def __init__(self, folder: Path, do: Callable[[], object], environment: dict[str, str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.paths = [folder / f"{name}-{time.monotonic_ns()}" for name in ("out", "err")]
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _child(self.paths, do, environment or {})
        self.ended: Ended | None = None

    def poll(self) -> Ended | None:
        if self.ended is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self.ended = self._end(os.waitstatus_to_exitcode(status), usage.ru_maxrss)
        return self.ended

    def wait(self, limit: float = LIMIT) -> Ended:
        until = time.monotonic() + limit
        while (ended := self.poll()) is None:
            if time.monotonic() > until:
                self.kill(signal.SIGKILL)
                os.wait4(self.pid, 0)
                self.ended = self._end(None, 0)
            time.sleep(0.003)
        return ended

    def kill(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def _end(self, status: int | None, kilobytes: int) -> Ended:
        out, err = (path.read_text(errors="replace") for path in self.paths)
        for path in self.paths:
            path.unlink()
        return Ended(status, out, err, kilobytes / 1024)


def _child(paths: list[Path], do: Callable[[], object], environment: dict[str, str]) -> None:
    status = 1
    try:
        for descriptor, path in enumerate(paths, 1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666), descriptor)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING, force=True)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.update(environment)
        answer = do()
        status = answer if isinstance(answer, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


@dataclass(frozen=True)
class Shell:
    """A folder with a cache, in which the tiny config is run."""

    path: Path

    @property
    def zoos(self) -> Path:
        return self.path / "cache"

    @property
    def run(self) -> Path:
        return self.path / "run"

    @property
    def environment(self) -> dict[str, str]:
        return {"PARAMTRANS_CACHE": str(self.zoos), "TRUST_EPOCHS": str(self.path / "epochs.txt")}

    def arguments(self, *more: str, run: str = "run") -> list[str]:
        plugins = ["--plugin", str(PLUGIN), "--plugin", str(RECORDER)]
        fixed = ["run", str(CONFIG), *plugins, "--json", "--quiet", "--set", "run.device=cpu"]
        return [*fixed, "--set", f"run.dir={self.path / run}", *more]

    def start(self, arguments: list[str], nap: float = 0.0) -> Process:
        return Process(self.path / "output", lambda: _main(arguments, nap), self.environment)

    def do(self, *more: str, run: str = "run") -> Ended:
        return self.start(self.arguments(*more, run=run)).wait()

    def record(self) -> dict[str, Any]:
        """`run.json` as it is now."""
        try:
            return dict(json.loads((self.run / "run.json").read_bytes()))
        except FileNotFoundError:
            return {}


def _main(arguments: list[str], nap: float) -> int:
    from paramtrans.cli.main import main
    from paramtrans.plugins import plugins

    plugins().load_file(PLUGIN)
    for name, module in sys.modules.items():
        if name.startswith("paramtrans_file_tiny_task"):
            module.NAP = nap
    return main(arguments)


@cache
def undisturbed(folder: Path) -> tuple[Shell, dict[str, Any]]:
    """A whole run, and what it printed. It is made in this process, so that forks need neither import nor compile."""
    shell, out = Shell(folder), io.StringIO()
    os.environ |= shell.environment
    with redirect_stdout(out):
        status = _main(shell.arguments(), 0)
    if status != 0:
        raise SystemExit("the undisturbed run failed")
    return shell, dict(json.loads(out.getvalue()))


def numbers(result: dict[str, Any]) -> dict[str, Any]:
    """The methods of what a run printed."""
    methods: dict[str, Any] = result["methods"]
    return methods


def parameters(folder: Path) -> dict[str, bytes]:
    """All parameter files below a folder, by path below it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.safetensors"))}


def leftovers(folder: Path) -> list[str]:
    """Files that were begun and never finished."""
    return [path.name for path in folder.rglob(".*") if path.is_file() and path.name != ".lock"]


def limited(do: Callable[[], object], megabytes: int) -> Callable[[], object]:
    """The same, allowed that much more memory than it has."""

    def run() -> object:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + megabytes * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        return do()

    return run
