"""A nested document as TOML."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any


def toml(document: Mapping[str, Any], path: tuple[str, ...] = ()) -> str:
    """`document` as TOML; what is None is left out, as TOML has no word for it."""
    return "\n".join(_toml_lines(document, path)).strip() + "\n"


def _toml_lines(document: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    tables = {key: value for key, value in document.items() if value and _is_table(value)}
    for key, value in document.items():
        if key not in tables and value is not None:
            yield f"{_toml_key(key)} = {_toml_value(value)}"
    for key, value in tables.items():
        below = (*path, _toml_key(key))
        left, right = ("[", "]") if isinstance(value, Mapping) else ("[[", "]]")
        for part in [value] if isinstance(value, Mapping) else value:
            yield f"\n{left}{'.'.join(below)}{right}"
            yield from _toml_lines(part, below)


def _is_table(value: Any) -> bool:
    parts = value if isinstance(value, list | tuple) else [value]
    return all(isinstance(part, Mapping) for part in parts)


def _toml_key(key: str) -> str:
    return key if re.fullmatch("[A-Za-z0-9_-]+", key) else _toml_value(str(key))


def _toml_value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_toml_key(k)} = {_toml_value(v)}" for k, v in value.items() if v is not None) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml_value(v) for v in value if v is not None) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value, ensure_ascii=False, default=str).replace("\x7f", "\\u007f")
