"""Files that a command is told to write: beside what is read, and only in the place of a file or of nothing."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path

from paramtrans.errors import StoreError
from paramtrans.storage import files
from paramtrans.utils.boundary import in_words

RUN = "run.json"


def check(path: Path, inputs: Iterable[Path] = (), force: bool = False) -> None:
    """Hold a file that is to be written to what may be lost. To be called before any work is done.

    Args:
        path: The file.
        inputs: Files and folders that are read.
        force: Whether an input, or a file of a run, may be written over.

    Raises:
        StoreError: no regular file stands there, or what may not be lost; or nothing can be written there.
    """
    with in_words(f"{path}: cannot be written", "choose another place"):
        files.check_replaceable(path)
        _check_above(path)
        if force or not path.exists():
            return
        for given in inputs:
            if given.exists() and _inside(path, given):
                raise StoreError(
                    f"{path}: is read here ({given}), and would be lost; name another file, or use --force"
                )
        if run := _run_of(path):
            raise StoreError(f"{path}: is a file of the run in {run}; name another file, or use --force")


def check_folder(path: Path, inputs: Iterable[Path] = ()) -> None:
    """Hold a folder that is to be written to be new or empty.

    Args:
        path: The folder.
        inputs: Files and folders that are read; it must lie outside of all.

    Raises:
        StoreError: it is not empty, lies inside an input, or nothing can be written there.
    """
    with in_words(f"{path}: cannot be written", "choose another place"):
        for given in inputs:
            if path.resolve() == given.resolve() or given.resolve() in path.resolve().parents:
                raise StoreError(f"{path}: lies inside {given}, which is read here; name a folder elsewhere")
        if os.path.lexists(path) and (not path.is_dir() or any(path.iterdir())):
            raise StoreError(f"{path}: is not empty; name a new folder")
        _check_above(path)


def _check_above(path: Path) -> None:
    """Make a nameless file, which goes again, in the nearest folder above a path that is there."""
    above = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    with tempfile.TemporaryFile(dir=above):
        pass


def _inside(path: Path, given: Path) -> bool:
    """Whether a file is a given one, or lies in a given folder."""
    return path.samefile(given) or (stat.S_ISDIR(given.stat().st_mode) and given.resolve() in path.resolve().parents)


def _run_of(path: Path) -> Path | None:
    """The run's folder in which a file lies, directly or with its translator; None where it lies in none."""
    above = path.resolve().parent
    return next((folder for folder in (above, above.parent) if (folder / RUN).is_file()), None)
