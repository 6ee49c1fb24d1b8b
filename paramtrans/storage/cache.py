"""Where zoos and data sets are kept between runs, and what `~` in a path stands for."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from paramtrans.errors import StoreError


def cache_dir(configured: str | None = None) -> Path:
    """The configured folder, else $PARAMTRANS_CACHE, else the user's cache folder as the system has it."""
    chosen = configured or os.environ.get("PARAMTRANS_CACHE")
    folder = chosen or platformdirs.user_cache_dir("paramtrans", appauthor=False)
    return at_home(folder, "set run.cache or $PARAMTRANS_CACHE to a folder")


def at_home(path: str, otherwise: str) -> Path:
    """A path in which `~` is the user's home folder.

    Args:
        path: The path.
        otherwise: What to do where there is no such home folder.

    Raises:
        StoreError: there is none.
    """
    try:
        expanded = Path(path).expanduser()
    except RuntimeError as error:
        raise StoreError(f"{path}: there is no such home folder; {otherwise}") from error
    if path.startswith("~") and expanded.parts[:1] == Path(path).parts[:1]:  # nobody knows where home is
        raise StoreError(f"{path}: there is no such home folder; {otherwise}")
    return expanded
