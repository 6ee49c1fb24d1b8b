"""Tests against the wheel on other Pythons: `python .ci/wheel.py PYTHON PYTEST-ARGUMENT...`.

PYTHON is a command, or `others`: each later Python that pyenv has here, the newest of each minor version, but not the
one that runs this. With `--within SECONDS` before it, nothing goes on for longer in all.

The wheel is built from this checkout and installed with the locked dependencies in a fresh environment. The tests run
in a copy of the checkout that has no package in it, so that what they import is the wheel.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOM = 20 * 10**9
"""Bytes that have to be free: torch and what it needs are some seven gigabytes, and as much again on the way."""
PATIENCE = 600
"""Seconds that the dependencies may take."""
LEAST = 60
"""Seconds with which it is worth to begin at all."""
OURS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
"""Variables that would bring the checkout, or another environment, in."""
NOT_COPIED = ("paramtrans", "runs", "build", "dist", "site")


def main(arguments: list[str]) -> int:
    """Exit status of the tests, of the first that fail; those without room or time are skipped, which is said."""
    end = float("inf")
    if arguments[0] == "--within":
        end, arguments = time.monotonic() + float(arguments[1]), arguments[2:]
    python, *tests = arguments
    pythons = others() if python == "others" else [python]
    if not pythons:
        print("no other Python here to try the wheel on", flush=True)
    for python in pythons:
        try:
            if status := tried(python, tests, end):
                return status
        except subprocess.TimeoutExpired as error:
            skipped(python, f"no time is left ({Path(error.cmd[0]).name} {' '.join(error.cmd[1:3])} was stopped)")
    return 0


def tried(python: str, tests: list[str], end: float) -> int:
    """Exit status of the tests on one Python; raises `TimeoutExpired` at the end of the time."""
    with tempfile.TemporaryDirectory(prefix="wheel", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if (free := shutil.disk_usage(folder).free) < ROOM:
            return skipped(python, f"{free / 1e9:.0f} GB are free, {ROOM / 1e9:.0f} are needed")
        begun = time.monotonic()
        if end - begun < LEAST:
            return skipped(python, "no time is left")
        inside = installed(python, folder, min(PATIENCE, end - begun))
        if inside is None:
            return skipped(python, "its packages cannot be had here (pip says why, above)")
        checks = copied(folder / "checks")
        place = "import paramtrans; print(paramtrans.__file__)"
        if not Path(do([inside, "-c", place], cwd=checks).strip()).is_relative_to(folder / "venv"):
            raise SystemExit("the tests would import something else than the wheel")
        ready = time.monotonic()
        command = [inside, "-m", "pytest", "-n", "auto", "--dist", "loadscope", *tests]
        left = None if end == float("inf") else max(1.0, end - ready)
        status = subprocess.run(command, cwd=checks, env=outside(), timeout=left).returncode
        done = time.monotonic()
        print(f"the wheel on {python}: installed in {ready - begun:.0f} s, tested in {done - ready:.0f} s", flush=True)
        return status


def others() -> list[str]:
    """Commands of the other Pythons that pyenv has here and that may be used, the newest of each minor version."""
    least = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    if (pyenv := shutil.which("pyenv")) is None:
        return []
    newest: dict[tuple[int, int], int] = {}
    for version in do([pyenv, "versions", "--bare"]).split():
        if numbers := re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", version):
            major, minor, patch = map(int, numbers.groups())
            newest[major, minor] = max(patch, newest.get((major, minor), 0))
    allowed = tuple(map(int, least.removeprefix(">=").split(".")))
    wanted = [minor for minor in sorted(newest) if minor >= allowed and minor != sys.version_info[:2]]
    root = Path(do([pyenv, "root"]).strip())
    return [str(root / "versions" / ".".join(map(str, (*minor, newest[minor]))) / "bin" / "python") for minor in wanted]


def installed(python: str, folder: Path, patience: float) -> str | None:
    """The Python of a fresh environment with the dependencies and the wheel; None where the former cannot be had."""
    do([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)])
    do([python, "-m", "venv", str(folder / "venv")])
    [inside] = map(str, [*folder.glob("venv/bin/python"), *folder.glob("venv/Scripts/python.exe")])
    pip = [inside, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps"]
    try:
        do([*pip, "--no-compile", "--require-hashes", "-r", str(ROOT / "requirements.lock")], timeout=patience)
    except subprocess.CalledProcessError:
        return None
    [wheel] = map(str, folder.glob("*.whl"))
    do([*pip, "--no-index", wheel])
    return inside


def copied(to: Path) -> Path:
    """A copy of the checkout without its packages."""

    def left_out(folder: str, names: list[str]) -> list[str]:
        if Path(folder) == ROOT:
            return [name for name in names if name.startswith(".") or name in NOT_COPIED]
        plugin = Path(folder).parent == ROOT / "plugins"
        return [name for name in names if name == "__pycache__" or (plugin and name.startswith("paramtrans_"))]

    shutil.copytree(ROOT, to, ignore=left_out)
    return to


def do(command: list[str], cwd: Path | None = None, timeout: float | None = None) -> str:
    """What a command prints on standard output; it has to succeed."""
    done = subprocess.run(command, check=True, cwd=cwd, env=outside(), timeout=timeout, stdout=subprocess.PIPE)
    return done.stdout.decode()


def outside() -> dict[str, str]:
    """The environment of a command that is to see nothing but the wheel."""
    return {name: value for name, value in os.environ.items() if name not in OURS}


def skipped(python: str, why: str) -> int:
    print(f"skipped: the wheel on {python}: {why}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
