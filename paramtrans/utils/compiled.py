"""Where compiled kernels are kept, also where neither the package nor the home folder may be written."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import platformdirs

VARIABLE = "NUMBA_CACHE_DIR"


def find_room() -> None:
    """Tell Numba a folder where it would find none of its own; to be called before Numba is imported.

    $PARAMTRANS_CACHE where that may be written, else a temporary folder that goes with the process.
    """
    own = Path(__file__).parent
    if os.environ.get(VARIABLE) or _writable(own) or _writable(Path(platformdirs.user_cache_dir("numba"))):
        return
    cache = os.environ.get("PARAMTRANS_CACHE")
    if cache and _writable(Path(cache)):
        os.environ[VARIABLE] = str(Path(cache).absolute() / "numba")
        return
    os.environ[VARIABLE] = made = tempfile.mkdtemp(prefix="paramtrans-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)


def _writable(folder: Path) -> bool:
    """Whether files may be put into a folder, which may have to be made."""
    there = next((each for each in (folder, *folder.parents) if each.exists()), None)
    return there is not None and there.is_dir() and os.access(there, os.W_OK | os.X_OK)
