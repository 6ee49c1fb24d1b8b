"""GGUF files as transformers reads them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from torch import nn

from paramtrans.utils.boundary import reason
from paramtrans_architectures.hugging_face_names import quietly

log = logging.getLogger(__name__)


def read(network: nn.Module, file: Path) -> nn.Module | None:
    """A model of a GGUF file; None where transformers does not read those of this architecture, or lacks what it takes.

    Args:
        network: One of the same class and precision.
        file: The file.
    """
    kind: Any = type(network)
    precision = next(network.parameters()).dtype
    try:
        with quietly():
            model: nn.Module = kind.from_pretrained(
                file.parent, gguf_file=file.name, dtype=precision, local_files_only=True
            )
    except Exception as error:  # packages that are missing, and architectures that are unknown there
        log.warning("transformers: %s", reason(error))
        return None
    return model.eval()
