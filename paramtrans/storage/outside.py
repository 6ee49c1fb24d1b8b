"""Files from outside: regular ones of a bounded size alone, as a pipe may never end and a device may do anything."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, load_file
from torch import Tensor

from paramtrans.errors import Damaged, StoreError
from paramtrans.utils.boundary import explained

KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
"""What stands where a file should, in words."""


def size(path: Path, at_most: int | None = None) -> int:
    """Bytes of a file; raises `Damaged` for what is no regular file, and one too large, `StoreError` without one."""
    try:
        return _checked(path, path.stat(), at_most)
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read: {explained(error)}") from error


@contextmanager
def opened(path: Path, at_most: int | None = None) -> Iterator[BufferedReader]:
    """A file to read; raises as `size` does, before anything is read, and `StoreError` where reading fails."""
    size(path, at_most)  # first, as to open a device may already do something
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
        with open(descriptor, "rb") as file:
            _checked(path, os.fstat(descriptor), at_most)  # again, as another may stand there by now
            yield file
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {explained(error)}") from error


def content(path: Path, at_most: int | None = None) -> bytes:
    """All bytes of a file; raises as `size` does."""
    with opened(path, at_most) as file:
        return file.read()


def tensors(path: Path, at_most: int | None = None) -> dict[str, Tensor]:
    """The tensors of a safetensors file; raises as `size` does, and `Damaged` where it is none."""
    size(path, at_most)
    try:
        return load_file(path) if _is_text(path) else load(content(path))
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {explained(error)}") from error
    except MemoryError as error:
        raise StoreError(f"{path}: is larger than the memory that there is") from error
    except SafetensorError as error:
        raise Damaged(f"{path}: not a safetensors file ({error})") from error


def _is_text(path: Path) -> bool:
    """Whether a path is UTF-8, which safetensors needs."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _checked(path: Path, status: os.stat_result, at_most: int | None) -> int:
    if not stat.S_ISREG(status.st_mode):
        what = "a folder" if stat.S_ISDIR(status.st_mode) else KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise Damaged(f"{path}: is no regular file but {what}")
    if at_most is not None and status.st_size > at_most:
        raise Damaged(f"{path}: {status.st_size:,} bytes, but no such file has more than {at_most:,}")
    return status.st_size
