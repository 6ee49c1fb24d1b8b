"""Where compiled kernels are kept, also where neither the package nor the home folder may be written."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import platformdirs

from paramtrans.errors import StoreError

VARIABLE = "NUMBA_CACHE_DIR"


def find_room() -> None:
    """Tell Numba a folder where it would find none of its own; to be called before Numba is imported.

    $PARAMTRANS_CACHE where that may be written, else a temporary folder that goes with the process. Raises `StoreError`
    where there is no room anywhere.
    """
    package = Path(__file__).parent
    if os.environ.get(VARIABLE) or _writable(package) or _writable(Path(platformdirs.user_cache_dir("numba"))):
        return
    cache = os.environ.get("PARAMTRANS_CACHE")
    if cache and _writable(Path(cache)):
        os.environ[VARIABLE] = str(Path(cache).absolute() / "numba")
        return
    try:
        temporary = tempfile.mkdtemp(prefix="paramtrans-")
    except OSError as error:
        raise StoreError(
            f"compiled kernels can be kept nowhere: neither {package} nor the home folder nor temporary files may be "
            f"written ({error.strerror}); let PARAMTRANS_CACHE name a folder"
        ) from error
    os.environ[VARIABLE] = temporary
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)


def _writable(folder: Path) -> bool:
    """Whether files may be put into a folder, which may have to be made."""
    there = next((place for place in (folder, *folder.parents) if place.exists()), None)
    return there is not None and there.is_dir() and os.access(there, os.W_OK | os.X_OK)
