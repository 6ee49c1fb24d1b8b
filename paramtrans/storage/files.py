"""Parameters on disk: safetensors files written atomically, each with a checksum beside it, damaged ones told apart."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from filelock import FileLock, Timeout
from safetensors.torch import save

from paramtrans.api.stacking import Params
from paramtrans.errors import Damaged as Damaged, StoreError
from paramtrans.storage import outside
from paramtrans.utils import documents
from paramtrans.utils.boundary import in_words, reason

MAX_JSON = 2**28
"""Bytes of a JSON document that are read at most; the accuracies of a million hosts take fewer."""
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}")
"""Names of files that are being written."""
MAX_HEADER = 2**20
"""Bytes of a parameter file beside its values, at most, where their number is known."""
SEAL = "record_sha256"
"""Key of a document's checksum of itself."""


def check_replaceable(path: Path) -> None:
    """Raise `StoreError` where something stands that is no regular file: to write there atomically would replace it."""
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    if not stat.S_ISREG(found.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "no regular file"
        raise StoreError(f"{path}: cannot be written: it is {what}, which that would replace; name another file")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; raises `StoreError` where the disk is full, the folder may not be written, or
    something stands there that is no regular file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        check_replaceable(path)
        temporary = path.with_name(f".{path.name}.{uuid4().hex}")
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be written: {reason(error)}; free space or choose another folder") from error


def write_json(path: Path, document: Any) -> None:
    """Write a JSON document whole or not at all; raises `StoreError` too where it is none, as NaN is not."""
    with _as_json(path):
        content = documents.content(document, indent=2) + b"\n"
    write_bytes(path, content)


def write_sealed(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON document with a checksum of itself, so that `unsealed` tells any change of it."""
    with _as_json(path):
        body = documents.parse(documents.text(document))  # what will be read: lists for tuples, text for keys
    write_json(path, {**body, SEAL: digest(body)})


def _as_json(path: Path) -> AbstractContextManager[None]:
    return in_words(f"{path}: is not written", "JSON holds finite numbers, text, lists and tables")


def unsealed(path: Path, document: Any) -> dict[str, Any]:
    """A document without the checksum that `write_sealed` gave it; raises `Damaged` where that does not fit."""
    body = dict(document) if isinstance(document, dict) else {}
    if body.pop(SEAL, None) != digest(body):
        raise Damaged(f"{path}: its own checksum does not fit; it was changed after it was written")
    return body


def read_json(path: Path) -> Any:
    """A JSON document of ours; raises `Damaged` where it is none."""
    try:
        return documents.parse(outside.content(path, MAX_JSON))
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{path}: not valid JSON ({error}); it was damaged after it was written") from error


def check_format(path: Path, found: Any, formats: Sequence[int], otherwise: str = "update paramtrans") -> None:
    """Raise `StoreError` where a document says none of the `formats`, whose last is written now; `otherwise` is what to
    do then."""
    if type(found) is not int or found not in formats:
        raise StoreError(f"{path}: has format {found}, this paramtrans reads {formats[-1]}; {otherwise}")


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


@contextmanager
def locked(folder: Path, otherwise: str, timeout: float = -1) -> Iterator[None]:
    """Keeps other processes out of a folder, which is made if need be; waits `timeout` seconds for them, -1 for ever.

    Raises `StoreError` where the folder cannot be written, with what to do `otherwise`, and filelock's `Timeout`.
    """
    make_folder(folder, otherwise)
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


def save_params(path: Path, params: Params, record: Mapping[str, Any]) -> None:
    """Write parameters to `path` and `record`, with the checksum of the parameters, to `path` + `.json`, last.

    The record's presence says that the file before it is complete.
    """
    content = save(
        {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in params.items()}
    )
    write_bytes(path, content)
    write_sealed(record_path(path), {**record, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()})


def load_params(path: Path, at_most: int | None = None) -> tuple[Params, dict[str, Any]]:
    """What `save_params` wrote, with its record; raises `Damaged` (naming the file) where anything changed since.

    A file with more than `at_most` bytes of values is not read.
    """
    record = load_record(path)
    if at_most is not None and record["bytes"] > (most := at_most + MAX_HEADER):
        raise Damaged(f"{path}: {record['bytes']:,} bytes, but no such file has more than {most:,}")
    return read_params(path, record), record


def read_params(path: Path, record: Mapping[str, Any]) -> Params:
    """The parameters in a file whose `record` is kept elsewhere; raises `Damaged` where they differ from it."""
    verify(path, record)
    # Copies, because results of vector instructions depend on where tensors lie in memory, and files align nothing.
    return {name: tensor.clone() for name, tensor in outside.tensors(path).items()}


def verify(path: Path, record: Mapping[str, Any]) -> None:
    """Raises `Damaged` where a file has another size or checksum than its `record` says."""
    if not exists(path):
        raise Damaged(f"{path}: missing, though its record is there")
    size = outside.size(path)
    if size != record.get("bytes"):
        raise Damaged(f"{path}: {size:,} bytes, expected {record.get('bytes')}; it was cut off or replaced")
    if checksum(path) != record.get("sha256"):
        raise Damaged(f"{path}: checksum differs from its record; it was changed after it was written")


def load_record(path: Path) -> dict[str, Any]:
    """The record of a parameter file; raises `Damaged` where it does not carry its own checksum, or is none."""
    record = unsealed(record_path(path), read_json(record_path(path)))
    if not (isinstance(record.get("bytes"), int) and isinstance(record.get("sha256"), str)):
        raise Damaged(f"{record_path(path)}: is not the record of a parameter file")
    return record


def record_path(path: Path) -> Path:
    """Where the record of a parameter file stands."""
    return path.with_name(path.name + ".json")


def written(path: Path, at_most: int | None = None) -> int:
    """When a parameter file was finished, in nanoseconds as files tell time; 0 where it was not.

    One that is later than `at_most`, as a clock was set back, is given that time.
    """
    place = record_path(path)
    try:
        found = place.stat().st_mtime_ns
        if at_most is not None and found > at_most:
            os.utime(place, ns=(at_most, at_most))
            return at_most
        return found
    except FileNotFoundError:
        return 0


def checksum(path: Path) -> str:
    """SHA-256 of a file, which is not held in memory; raises as `outside.opened` does."""
    with outside.opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(document: Mapping[str, Any]) -> str:
    """A name for a JSON document, the same for the same content."""
    return hashlib.sha256(documents.canonical(document)).hexdigest()
