"""Locks that keep other processes out of a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from paramtrans.errors import StoreError
from paramtrans.storage import files


@contextmanager
def locked(folder: Path, otherwise: str, timeout: float = -1) -> Iterator[None]:
    """Keep other processes out of a folder, which is made if need be.

    Args:
        folder: The folder.
        otherwise: What to do where it cannot be written.
        timeout: Seconds to wait for another process; -1 for ever.

    Raises:
        StoreError: the folder cannot be written.
        Timeout: (filelock's) another process still holds it.
    """
    files.make_folder(folder, otherwise)
    try:
        if (folder / ".lock").is_symlink():
            raise StoreError(f"{folder / '.lock'}: is a symbolic link, and might lead anywhere; {otherwise}")
        lock = FileLock(folder / ".lock", timeout=timeout)
        lock.acquire()
    except Timeout:
        raise
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written: {error.strerror or error}; {otherwise}") from error
    try:
        yield
    finally:
        lock.release()
