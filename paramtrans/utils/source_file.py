"""Python files of users, run as they are now: no bytecode is written beside them or taken from there."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from typing import Any


class _Uncached(SourceFileLoader):
    """Bytecode is known by the second and the size of its source, which an edit need not change."""

    def path_stats(self, path: str) -> Mapping[str, Any]:
        raise OSError("no bytecode is kept")


def source_spec(name: str, path: Path) -> ModuleSpec | None:
    """How to import a Python file; None where it is none.

    Args:
        name: Of the module.
        path: The file.
    """
    if path.suffix != ".py":
        return None
    return importlib.util.spec_from_file_location(name, path, loader=_Uncached(name, str(path)))
