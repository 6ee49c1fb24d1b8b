"""A one-file plugin that notes the number of every epoch that is trained."""

from __future__ import annotations

import os
from pathlib import Path

from paramtrans import hookimpl


@hookimpl
def paramtrans_epoch_ended(epoch: int) -> None:
    with Path(os.environ["TRUST_EPOCHS"]).open("a") as file:
        file.write(f"{epoch}\n")
