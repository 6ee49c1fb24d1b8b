"""Where the program meets what is not its own, and errors of Python and of the system become words."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from paramtrans.errors import Damaged, ParamtransError, StoreError

FOREIGN = (OSError, ValueError, TypeError)
"""What files, paths and values from outside are answered with."""
MALFORMED = (AttributeError, LookupError, TypeError, ValueError, ArithmeticError, RuntimeError)
"""What a document is answered with that lacks what is read of it, or holds something else there; torch's answer to
tensors of other names and sizes is a `RuntimeError`."""


def reason(error: BaseException) -> str:
    """Why, in a line: what the system says of a file, the first finding of pydantic, else the message's first line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if callable(findings := getattr(error, "errors", None)):  # of pydantic, which is not imported for that
        first = findings()[0]
        return f"{'.'.join(map(str, first['loc']))[:200]}: {first['msg']}"
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def explained(error: BaseException, otherwise: str = "") -> str:
    """Why, and what to do.

    Args:
        error: Of Python or of the system.
        otherwise: What to do, unless the limit on open files is the cause.
    """
    too_many = isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)
    advice = "let processes open more files (ulimit -n)" if too_many else otherwise
    return f"{reason(error)}; {advice}" if advice else reason(error)


@contextmanager
def in_words(what: str, otherwise: str = "", kind: type[ParamtransError] = StoreError) -> Iterator[None]:
    """Turns errors of Python and of the system into ours: `what` went wrong, why, and what to do `otherwise`."""
    try:
        yield
    except ParamtransError:
        raise
    except FOREIGN as error:
        raise kind(f"{what}: {explained(error, otherwise)}") from error


@contextmanager
def well_formed(path: Path, otherwise: str = "it was damaged, or made by hand") -> Iterator[None]:
    """Turns what happens where a document holds something else than is read of it into `Damaged`; `otherwise` is what
    to do then."""
    try:
        yield
    except ParamtransError:
        raise
    except MALFORMED as error:
        said = f"{type(error).__name__}: {reason(error)}"
        raise Damaged(f"{path}: is not what was written there ({said}); {otherwise}") from error
