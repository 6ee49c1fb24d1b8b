"""Files and folders: written whole or not at all, deleted, and told apart by checksums."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from paramtrans.errors import StoreError
from paramtrans.storage import outside
from paramtrans.utils.boundary import explained, reason

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}")
"""Names of files that are being written."""
OPEN = Path("/proc/self/fd")
"""Where Linux has what a process has open, by number."""


def check_replaceable(path: Path) -> None:
    """Raise `StoreError` where something stands that is no regular file: to write there atomically would replace it."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    if not stat.S_ISREG(status.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "no regular file"
        raise StoreError(f"{path}: cannot be written: it is {what}, which that would replace; name another file")


@contextmanager
def no_links_below(folder: Path) -> Iterator[None]:
    """Within it nothing is written through links below a folder (on Linux), also not those put there meanwhile."""
    real_folder = Path(os.path.abspath(folder))
    _OWN.append(real_folder)
    try:
        yield
    finally:
        _OWN.remove(real_folder)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; raises as `write_by` does."""
    write_by(path, lambda file: file.write_bytes(content))


def write_by(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file whole or not at all by what writes the file that it is given, which becomes this one.

    Raises `StoreError` where the disk is full, the folder may not be written, or something stands there that is no
    regular file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        check_replaceable(path)
        with _reached(path.parent) as folder:
            temporary = folder / f".{path.name}.{uuid4().hex}"
            try:
                temporary.touch(exist_ok=False)
                write(temporary)
                with temporary.open("rb+") as file:
                    os.fsync(file.fileno())
                os.replace(temporary, folder / path.name)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except (OSError, ValueError) as error:
        why = explained(error, "free space or choose another folder")
        raise StoreError(f"{path}: cannot be written: {why}") from error


_OWN: list[Path] = []


@contextmanager
def _reached(folder: Path) -> Iterator[Path]:
    """A folder to write in; one below a folder without links by what was opened on the way there, step by step."""
    whole = Path(os.path.abspath(folder))
    root = next((root for root in _OWN if root in whole.parents), None)
    if root is None or not OPEN.is_dir():
        yield folder
        return
    number = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in whole.relative_to(root).parts:
            above, number = number, os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=number)
            os.close(above)
        yield OPEN / str(number)
    finally:
        os.close(number)


def exists(path: Path) -> bool:
    """Whether there is a file or folder; raises `StoreError` where that may not be known."""
    try:
        return path.exists()
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read: {reason(error)}") from error


def remove(path: Path) -> None:
    """Delete a file, or a folder with all in it, if it is there; raises `StoreError` where that is not allowed."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{path}: cannot be deleted: {error.strerror or error}") from error


def make_folder(folder: Path, otherwise: str) -> None:
    """Make a folder if need be; raises `StoreError` where that cannot be, with what to do `otherwise`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise StoreError(f"{folder}: cannot be written: {reason(error)}; {otherwise}") from error


def tidy(*folders: Path) -> None:
    """Delete what a killed process had begun to write in folders that no other process writes in now."""
    for folder in folders:
        for path in folder.glob(".*"):
            if TEMPORARY.fullmatch(path.name):
                remove(path)


def checksum(path: Path) -> str:
    """SHA-256 of a file, which is not held in memory; raises as `outside.opened` does."""
    with outside.opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
