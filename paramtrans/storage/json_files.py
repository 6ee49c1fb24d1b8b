"""JSON documents on disk: written whole, and where wanted sealed by a checksum of themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from paramtrans.errors import Damaged, StoreError
from paramtrans.storage import files, outside
from paramtrans.utils import documents
from paramtrans.utils.boundary import in_words

MAX_JSON = 2**28
"""Bytes of a JSON document that are read at most; the accuracies of a million hosts take fewer."""
SEAL = "record_sha256"
"""Key of a document's checksum of itself."""
_NUMBERS = TypeAdapter(list[dict[str, float | None]])


def write_json(path: Path, document: Any) -> None:
    """Write a JSON document whole or not at all; raises `StoreError` too where it is none, as NaN is not."""
    with _as_json(path):
        content = documents.content(document, indent=2) + b"\n"
    files.write_bytes(path, content)


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
    except ValueError as error:
        raise Damaged(f"{path}: not valid JSON ({error}); it was damaged after it was written") from error


def read_numbers(path: Path, otherwise: str) -> list[dict[str, float | None]]:
    """Lines of JSON, each with numbers by name.

    Args:
        path: Where they stand.
        otherwise: What to do where they are not what was written.

    Raises:
        Damaged: a line was cut or changed.
    """
    content = outside.content(path, MAX_JSON)
    with in_words(f"{path}: a line does not hold numbers by name", f"it was cut off or changed; {otherwise}", Damaged):
        return _NUMBERS.validate_python(documents.lines(content), strict=True)


def check_format(path: Path, version: Any, formats: Sequence[int], otherwise: str = "") -> None:
    """Hold a document to the formats that are read here.

    Args:
        path: Where it stands.
        version: The format that it says it has.
        formats: Those that are read; the last is written now.
        otherwise: What to do where it has none of them; by default to update, where it is a later one.

    Raises:
        StoreError: it has none of them.
    """
    if type(version) is not int or version not in formats:
        later = type(version) is int and version > formats[-1]
        advice = otherwise or ("update paramtrans" if later else "it was damaged, or made by hand")
        raise StoreError(f"{path}: has format {version!r}, this paramtrans reads {formats[-1]}; {advice}")


def digest(document: Mapping[str, Any]) -> str:
    """A name for a JSON document, the same for the same content."""
    return hashlib.sha256(documents.canonical(document)).hexdigest()
