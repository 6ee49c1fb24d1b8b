"""Checkpoints of others (`.pt`, `.pth`): the tensors in them, and nothing that would be run."""

from __future__ import annotations

import contextlib
import re
import warnings
import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from paramtrans.errors import StoreError
from paramtrans.storage import outside

MAX_PICKLE = 2**26
"""Bytes in which a checkpoint may describe its tensors, at most; a thousand take a tenth of a megabyte."""
PICKLE = b"\x80"
"""What a pickle begins with."""
DEEP = re.compile(rb"[\]}()]{1000}|(?:\]q.|\}q.|\(q.|\]\x94|\}\x94){1000}", re.DOTALL)
"""Containers begun in containers, in a row."""
REFUSED = (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError, MemoryError)
"""What torch answers with where a file is damaged, or holds more than tensors and containers of them."""


def read(path: Path, at_most: int | None = None) -> Any:
    """What `torch.save` wrote, if it is tensors and containers alone; nothing in the file is ever run.

    Args:
        path: The file.
        at_most: Bytes above which it is not read.

    Raises:
        StoreError: it is no regular file, too large, damaged, or holds other objects.
    """
    size = outside.size(path)
    try:
        _check_kind(path)
        _check_size(path, size, at_most)
        _check_nesting(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of scripted modules, which are refused
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (*REFUSED, zipfile.BadZipFile) as error:
        raise StoreError(_refusal(path, _what_else(path, error))) from error


def _refusal(path: Path, what: str) -> str:
    return (
        f"{path}: cannot be read as a checkpoint of tensors alone ({what}); other objects are refused, because loading "
        "them runs code; save `model.state_dict()` as safetensors"
    )


def _check_kind(path: Path) -> None:
    """Raise `StoreError` for files of other kinds: `torch.save` writes archives, and wrote pickles."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise StoreError(_refusal(path, "it is a scripted module, torch.jit"))
        return
    with path.open("rb") as file:
        if file.read(1) != PICKLE:
            raise StoreError(f"{path}: is no checkpoint, neither safetensors nor what torch.save writes")


def _what_else(path: Path, error: Exception) -> str:
    """What a file holds beside tensors, as far as it can be told without running anything of it."""
    if zipfile.is_zipfile(path):
        with contextlib.suppress(*REFUSED):
            if classes := torch.serialization.get_unsafe_globals_in_checkpoint(path):  # reads names alone
                ours = [name for name in classes if not name.startswith(("torch.", "collections.", "builtins."))]
                return f"it holds pickled objects: {', '.join(name[:80] for name in sorted(ours or classes)[:3])}"
    if "weights_only" in str(error) or "Weights only" in str(error):
        return "it holds pickled objects"
    return (str(error).splitlines() or [type(error).__name__])[0][:100]


def _check_nesting(path: Path) -> None:
    """Lists in lists a million deep are built, at some cost, before they are refused; torch nests a few."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            pickles = [member for member in archive.infolist() if member.filename.endswith(".pkl")]
            if any(member.file_size > MAX_PICKLE for member in pickles):
                raise StoreError(
                    f"{path}: describes its tensors in more than {MAX_PICKLE:,} bytes; this is no checkpoint"
                )
            contents = [archive.read(member) for member in pickles]
    else:
        with path.open("rb") as file:
            contents = [file.read(MAX_PICKLE)]
    if any(DEEP.search(content) for content in contents):
        raise StoreError(
            f"{path}: cannot be read as a checkpoint of tensors alone (nested too deeply); other objects are refused"
        )


def _check_size(path: Path, size: int, at_most: int | None) -> None:
    """torch packs nothing, so a file that holds more bytes than it has was made to fill the memory."""
    inside = size
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            inside = max(size, sum(member.file_size for member in archive.infolist()))
    if at_most is not None and inside > at_most:
        raise StoreError(f"{path}: {inside:,} bytes, far more than the {at_most:,} that its values may need")
    if inside > size:
        raise StoreError(f"{path}: is a packed archive of {inside:,} bytes, and torch packs none; unpack it first")
