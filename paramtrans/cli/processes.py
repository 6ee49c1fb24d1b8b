"""Processes that torchrun started for one command, of which one prints and writes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paramtrans.utils.distributed import ProcessGroup


def joined() -> ProcessGroup:
    """The processes of this command; warnings are those of the one that leads."""
    from paramtrans.utils.distributed import process_group

    processes = process_group()
    if not processes.leads:
        logging.disable(logging.WARNING)
    return processes
