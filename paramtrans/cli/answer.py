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

_kept: list[TextIO] = []
"""Standard output, while it is kept for the answer."""


@contextmanager
def alone(wanted: bool) -> Iterator[None]:
    """Within it, if `wanted`, nothing reaches standard output but `tell`: no plugin's, no library's, no child's."""
    if not wanted or sys.stdout is None:
        yield
        return
    sys.stdout.flush()
    with _descriptor_kept() as stream:
        before, sys.stdout = sys.stdout, sys.stderr
        _kept.append(stream or before)
        try:
            yield
        finally:
            _kept.pop().flush()
            sys.stdout = before


@contextmanager
def _descriptor_kept() -> Iterator[TextIO | None]:
    """Where standard output is descriptor 1: another way to it, while 1 itself leads to standard error."""
    try:
        own = sys.stdout.fileno() == 1 and sys.stderr.fileno() == 2
    except (OSError, ValueError, AttributeError):  # replaced by something that is no file
        own = False
    if not own:
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
    """Print the answer, one JSON document; raises `ParamtransError` where it holds numbers that JSON does not have."""
    try:
        text = documents.text(document, indent)
    except (ValueError, TypeError) as error:
        raise ParamtransError(f"the answer is no JSON: {error}") from error
    click.echo(text, file=_kept[-1] if _kept else None)
