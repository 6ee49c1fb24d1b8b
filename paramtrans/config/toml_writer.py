"""A nested document as TOML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tomli_w


def toml(document: Mapping[str, Any]) -> str:
    """`document` as TOML; what is None is left out, as TOML has no word for it."""
    return tomli_w.dumps(_without_none(document))


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_none(below) for key, below in value.items() if below is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value if item is not None]
    return value
