"""Where zoos and data sets are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_dir(configured: str | None = None) -> Path:
    """The configured folder, else $PARAMTRANS_CACHE, else the user's cache folder as the system has it."""
    chosen = configured or os.environ.get("PARAMTRANS_CACHE")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("paramtrans", appauthor=False))
