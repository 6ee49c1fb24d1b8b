"""PyTorch's fast path for attention and encoders, which skips their layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def layer_by_layer() -> Iterator[None]:
    """Within it every layer is run by itself, so that it can be watched, replaced, followed and counted."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
