"""Python processes for which torch and its like are imported already: they start in milliseconds instead of seconds.

A server imports the libraries once and is forked for each process, which has no module of paramtrans, and the folder,
variables and path that a fresh one would have. What is about starting itself is tested with fresh processes.
"""

from __future__ import annotations

import atexit
import importlib
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

LIBRARIES = ("torch", "torch._dynamo", "torchvision", "numba", "scipy.optimize", "safetensors.torch", "pydantic")


def python(
    arguments: Sequence[str], env: Mapping[str, str], cwd: Path, timeout: float
) -> subprocess.CompletedProcess[str]:
    """What `python ARGUMENTS` does: `-m MODULE`, `-c CODE` or a file, with what follows."""
    if sys.platform == "win32":
        command = [sys.executable, *arguments]
        return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(LIBRARIES))
    with tempfile.TemporaryDirectory() as folder:
        printed = Path(folder, "out"), Path(folder, "err")
        path = [*env.get("PYTHONPATH", "").split(os.pathsep), *_installed()]
        given = (list(arguments), dict(env), str(cwd), [part for part in path if part], *map(str, printed))
        process = context.Process(target=_begin, args=given)
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(list(arguments), timeout)
        out, err = (path.read_text() if path.exists() else "" for path in printed)
    return subprocess.CompletedProcess(list(arguments), process.exitcode, out, err)


def _begin(arguments: list[str], env: dict[str, str], cwd: str, path: list[str], out: str, err: str) -> None:
    """Be a process that has just started."""
    for number, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    encoding = env.get("PYTHONIOENCODING", "utf-8")
    sys.stdout, sys.stderr = os.fdopen(1, "w", encoding=encoding), os.fdopen(2, "w", 1, encoding=encoding)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.path[:] = map(os.path.abspath, path)
    importlib.invalidate_caches()
    try:
        _run(arguments)
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()


@cache
def _installed() -> list[str]:
    """The path of a Python without $PYTHONPATH."""
    code = "import sys; print('\\n'.join(sys.path[1:]))"
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=bare, capture_output=True, text=True, check=True).stdout.splitlines()


def _run(arguments: list[str]) -> None:
    option, *rest = arguments
    if option == "-m":
        sys.argv, sys.path[:0] = rest, [os.getcwd()]
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif option == "-c":
        sys.argv, sys.path[:0] = ["-c", *rest[1:]], [""]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv, sys.path[:0] = arguments, [os.path.dirname(os.path.abspath(option))]
        runpy.run_path(option, run_name="__main__")
