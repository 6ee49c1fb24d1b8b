"""Points on disk from which an interrupted training goes on."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from paramtrans.api.stacking import Params
from paramtrans.errors import StoreError
from paramtrans.storage import files, sealed_params

logger = logging.getLogger(__name__)


class Checkpoint:
    """The latest point of one training, in a folder; `identity` says which training it belongs to."""

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self.folder, self.identity = folder, identity

    def save(self, epoch: int, tensors: Params, record: dict[str, Any]) -> None:
        """Write a new point, whole, before the one before it is dropped."""
        path = self.folder / f"epoch-{epoch:07d}.safetensors"
        sealed_params.save_params(path, tensors, {**self.identity, **record})
        for other in set(self.folder.glob("epoch-*")) - {path, sealed_params.record_path(path)}:
            files.remove(other)

    def latest(self) -> tuple[Params, dict[str, Any]] | None:
        """The latest point that is whole and belongs to this training; None without one."""
        paths = {path.with_name(path.name.removesuffix(".json")) for path in self.folder.glob("epoch-*.safetensors*")}
        for path in sorted(paths, reverse=True):
            try:
                tensors, record = sealed_params.load_params(path)
            except StoreError as error:
                logger.warning("%s; training goes on from an earlier point", error)
                continue
            if {key: record.get(key) for key in self.identity} == self.identity:
                return tensors, record
        return None
