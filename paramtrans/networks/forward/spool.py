"""Features kept in bounded memory: what does not fit is kept in temporary files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from paramtrans.errors import StoreError
from paramtrans.utils.boundary import reason

BYTES_IN_MEMORY = 2**28
"""Features beyond this size are kept in temporary files."""


class Spool:
    """Tensors in order, read as often as wanted; in memory up to a limit, in temporary files beyond."""

    def __init__(self, limit: int = BYTES_IN_MEMORY) -> None:
        self._left, self._held = limit, list[Tensor | Path]()
        self.examples = 0
        """Entries of the first axes of all tensors together."""
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def add(self, tensor: Tensor) -> None:
        """Keep a tensor behind those before it."""
        self.examples += len(tensor)
        self._left -= tensor.nbytes
        if self._left >= 0:
            self._held.append(tensor.clone())
            return
        try:
            self._folder = self._folder or tempfile.TemporaryDirectory(prefix="paramtrans-")
            path = Path(self._folder.name) / f"{len(self._held)}.safetensors"
            save_file({"features": tensor.contiguous().cpu()}, path)
        except (OSError, SafetensorError) as error:
            place = self._folder.name if self._folder else "temporary files"
            raise StoreError(
                f"{place}: features cannot be kept there: {reason(error)}; free space, let TMPDIR name another folder, "
                "or give fewer calibration inputs"
            ) from error
        self._held.append(path)

    def __iter__(self) -> Iterator[Tensor]:
        for item in self._held:
            yield item if isinstance(item, Tensor) else load_file(item)["features"]
