"""Folders as a hub's client keeps them: a snapshot's files are links to where the contents of all snapshots lie."""

from __future__ import annotations

from pathlib import Path

SNAPSHOTS, BLOBS = "snapshots", "blobs"
MARKER = ".huggingface-shared-blobs"
"""Stands in the store that all models of a cache share, of newer clients."""


def own_files(folder: Path) -> list[Path]:
    """The regular files of a folder, in the order of their names.

    A link counts where it leads to the folder itself, or, of a snapshot, to the blobs of its own cache: another may
    lead to what is nobody else's business.
    """
    return [file for file in sorted(folder.iterdir()) if file.is_file() and _is_own(file.resolve(), folder.resolve())]


def _is_own(target: Path, folder: Path) -> bool:
    if target.parent == folder:
        return True
    if folder.parent.name != SNAPSHOTS:
        return False
    model = folder.parents[1]  # CACHE/models--NAME/snapshots/REVISION
    shared = model.parent / BLOBS  # CACHE/blobs/AB/ABCDEF
    return target.parent == model / BLOBS or (target.parent.parent == shared and (shared / MARKER).is_file())
