"""Running out of memory, told in words: where, and what would need less."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from paramtrans.errors import OutOfMemory

SIGNS = ("can't allocate memory", "out of memory", "not enough memory", "overflow")
"""What torch's messages say where a tensor is larger than memory, or than any memory."""
LESS = "lower zoo.shard, training.batch_size, or the sizes of task, blocks and translator; what was finished is kept"


@contextmanager
def told(what: str, instead: str = LESS) -> Iterator[None]:
    """Turns running out of memory into `OutOfMemory`: `what` was done, and what to do `instead`."""
    try:
        yield
    except (MemoryError, OverflowError, RuntimeError, TypeError) as error:
        text = (str(error).splitlines() or [""])[0]
        if isinstance(error, RuntimeError | TypeError) and not any(sign in text.lower() for sign in SIGNS):
            raise
        raise OutOfMemory(f"{what}: not enough memory{f' ({text})' if text else ''}; {instead}") from error
