"""JSON as everybody reads it: no NaN, no infinity, whether written or read."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

MOST_DEPTH = 100
"""Lists and tables inside one another that a document may have; Python's own functions fail at some 900."""
TOO_DEEP = f"lists and tables are more than {MOST_DEPTH} deep in one another"


def text(document: Any, indent: int | None = None) -> str:
    """A document as JSON; raises `ValueError` for what `parse` refuses: numbers that are not finite, and depth."""
    _check_depth(document)
    return json.dumps(document, indent=indent, ensure_ascii=False, allow_nan=False)


def content(document: Any, indent: int | None = None) -> bytes:
    """The same in UTF-8; what no UTF-8 has, such as bytes of a path in another encoding, is escaped."""
    return text(document, indent).encode("utf-8", errors="backslashreplace")


def parse(content: str | bytes) -> Any:
    """What JSON says; raises `ValueError` where it is none, says NaN, is too deep, or begins with a byte-order mark."""
    if content[:3] in (b"\xef\xbb\xbf", "\ufeff"):
        raise ValueError("begins with a byte-order mark; save it as UTF-8 without one")
    try:
        document = json.loads(content, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError(TOO_DEEP) from error
    _check_depth(document)
    return document


def lines(content: bytes) -> list[Any]:
    """What each line of JSON says; raises `ValueError` where one is none."""
    return [parse(line) for line in content.decode(errors="replace").splitlines()]


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


def _check_depth(document: Any) -> None:
    level = [document]
    for _ in range(MOST_DEPTH):
        level = [below for value in level for below in _inside(value) if isinstance(below, dict | list | tuple)]
        if not level:
            return
    raise ValueError(TOO_DEEP)


def _inside(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number in JSON")
