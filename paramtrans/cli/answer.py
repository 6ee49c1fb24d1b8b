"""Standard output belongs to the answer: with `--json`, whatever else is printed goes to standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import click

from paramtrans.errors import ParamtransError
from paramtrans.utils import documents

_reserved: list[TextIO] = []
"""Standard output, while it is reserved for the answer."""


@contextmanager
def reserve_output(enabled: bool) -> Iterator[None]:
    """Within it, if enabled, only `tell` writes to standard output: no plugin, no library and no child process.

    Args:
        enabled: Whether the answer is JSON.
    """
    if not enabled or sys.stdout is None:
        yield
        return
    sys.stdout.flush()
    with _reserved_descriptor() as stream:
        original, sys.stdout = sys.stdout, sys.stderr
        _reserved.append(stream or original)
        try:
            yield
        finally:
            _reserved.pop().flush()
            sys.stdout = original


@contextmanager
def _reserved_descriptor() -> Iterator[TextIO | None]:
    """Where standard output is descriptor 1: another descriptor for it, while 1 itself leads to standard error."""
    try:
        is_descriptor = sys.stdout.fileno() == 1 and sys.stderr.fileno() == 2
    except (OSError, ValueError, AttributeError):  # replaced by something that is no file
        is_descriptor = False
    if not is_descriptor:
        yield None
        return
    descriptor = os.dup(1)
    os.dup2(2, 1)
    try:
        with open(descriptor, "w", encoding="utf-8", errors="backslashreplace", closefd=False) as stream:
            yield stream
    finally:
        os.dup2(descriptor, 1)
        os.close(descriptor)


def tell(document: Any, indent: int | None = None) -> None:
    """Print the answer.

    Args:
        document: What is printed as JSON.
        indent: Spaces by which inner lines are indented; None: one line.

    Raises:
        ParamtransError: it holds numbers that JSON does not have.
    """
    try:
        text = documents.text(document, indent)
    except (ValueError, TypeError) as error:
        raise ParamtransError(f"the answer is no JSON: {error}") from error
    click.echo(text, file=_reserved[-1] if _reserved else None)
