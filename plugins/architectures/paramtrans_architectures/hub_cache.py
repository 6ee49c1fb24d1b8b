"""Folders as a hub's client keeps them: a snapshot's files are links to where the contents of all snapshots lie."""

from __future__ import annotations

import re
from pathlib import Path

from paramtrans.errors import StoreError
from paramtrans.storage import outside

SNAPSHOTS, BLOBS = "snapshots", "blobs"
MARKER = ".huggingface-shared-blobs"
"""Stands in the store that all models of a cache share, of newer clients."""

MAX_CARD = 2**20
"""Bytes of a model's card that is read."""


def own_files(folder: Path) -> list[Path]:
    """The regular files of a folder, in the order of their names.

    A link counts where it leads to the folder itself, or, of a snapshot, to the blobs of its own cache. Other links are
    left out, as they may lead to files that are private.
    """
    return [file for file in sorted(folder.iterdir()) if file.is_file() and _is_own(file.resolve(), folder.resolve())]


def model(folder: Path) -> str | None:
    """The name on its hub of the model whose snapshot a folder is, `ORGANISATION/NAME`; None for other folders."""
    above = folder.resolve().parents
    if len(above) < 2 or above[0].name != SNAPSHOTS or not above[1].name.startswith("models--"):
        return None
    return above[1].name.removeprefix("models--").replace("--", "/")


def licence(folder: Path) -> str | None:
    """The licence that the header of a model's own card states; None where there is none."""
    try:
        card = outside.content(folder / "README.md", MAX_CARD).decode("utf-8", errors="replace")
    except StoreError:
        return None
    header = re.match(r"---\r?\n(.*?)\n---", card, re.DOTALL)
    stated = re.search(r"^licen[cs]e:[ \t]*[\"']?([\w.+-]+)", header[1], re.MULTILINE) if header else None
    return stated[1] if stated else None


def _is_own(target: Path, folder: Path) -> bool:
    if target.parent == folder:
        return True
    if folder.parent.name != SNAPSHOTS:
        return False
    model = folder.parents[1]  # CACHE/models--NAME/snapshots/REVISION
    shared = model.parent / BLOBS  # CACHE/blobs/AB/ABCDEF
    return target.parent == model / BLOBS or (target.parent.parent == shared and (shared / MARKER).is_file())
