"""JSON as everybody reads it: no NaN, no infinity, whether written or read."""

from __future__ import annotations

import json
import math
from typing import Any


def text(document: Any, indent: int | None = None) -> str:
    """A document as JSON; raises `ValueError` for a number that is not finite, which JSON does not have."""
    return json.dumps(document, indent=indent, ensure_ascii=False, allow_nan=False)


def content(document: Any, indent: int | None = None) -> bytes:
    """The same in UTF-8; what no UTF-8 has, such as bytes of a path in another encoding, is escaped."""
    return text(document, indent).encode("utf-8", errors="backslashreplace")


def parse(content: str | bytes) -> Any:
    """What JSON says; raises `ValueError` where it is none, says NaN, or begins with a byte-order mark."""
    if content[:3] in (b"\xef\xbb\xbf", "\ufeff"):
        raise ValueError("begins with a byte-order mark; save it as UTF-8 without one")
    return json.loads(content, parse_constant=_refuse)


def canonical(document: Any) -> bytes:
    """The same bytes for the same content, for checksums."""
    return json.dumps(document, sort_keys=True, allow_nan=False).encode()


def finite(document: Any) -> tuple[Any, list[str]]:
    """A document with null for each number that is not finite, and the dotted paths of these."""
    lost: list[str] = []
    return _finite(document, "", lost), lost


def _finite(value: Any, path: str, lost: list[str]) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        lost.append(path)
        return None
    if isinstance(value, dict):
        return {key: _finite(below, f"{path}.{key}".lstrip("."), lost) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(below, f"{path}.{number}".lstrip("."), lost) for number, below in enumerate(value)]
    return value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number in JSON")
