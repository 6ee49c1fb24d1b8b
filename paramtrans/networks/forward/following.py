"""A network followed by `torch.export`, quietly; what it cannot follow is told with the line of the network's code."""

from __future__ import annotations

import contextlib
import io
import linecache
import logging
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from paramtrans.errors import SpecMismatch
from paramtrans.utils.fast_path import layer_by_layer

TALKATIVE = ("torch.export", "torch.fx.experimental.symbolic_shapes", "torch.onnx", "onnxscript", "onnx_ir")
"""Loggers of libraries that tell about themselves."""
OTHERS = (Path(torch.__file__).parent, Path(__file__).parents[2])
"""Where code is that is nobody's network."""


def follow(
    network: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], dynamic_shapes: Any = None
) -> ExportedProgram:
    """The program of one pass of a network.

    Args:
        network: In eval mode.
        args: What it is called with by position; two examples are enough.
        kwargs: What it is called with by name.
        dynamic_shapes: Axes of any length, as `torch.export` takes them.

    Raises:
        SpecMismatch: `torch.export` cannot follow the network; the message names the line of its code.
    """
    silent = contextlib.redirect_stderr(io.StringIO())  # where it prints what it has
    try:
        with torch.no_grad(), layer_by_layer(), quiet(), silent:
            return torch.export.export(network, args, dict(kwargs), dynamic_shapes=dynamic_shapes, strict=False)
    except Exception as error:
        raise SpecMismatch(f"torch.export cannot follow this network: {_cause(error)}{_where(error)}") from error


def free_axes(value: Any, tokens: bool) -> dict[int, Any] | None:
    """Axes of an input whose length may change: that of the examples, and of whole numbers that of the tokens.

    Args:
        value: The input.
        tokens: Whether the number of tokens is free.
    """
    if not isinstance(value, Tensor) or not value.ndim:
        return None
    has_tokens = tokens and not value.is_floating_point() and value.ndim > 1
    return dict.fromkeys((0, 1) if has_tokens else (0,), Dim.AUTO)


@contextmanager
def quiet() -> Iterator[None]:
    """Silences what torch and onnxscript log about themselves."""
    loggers = [logging.getLogger(name) for name in TALKATIVE]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _cause(error: Exception) -> str:
    """What export says, without its advice."""
    if "DataDependent" in type(error).__name__:
        return "what it does next depends on values of its features, not on their shapes alone"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def _where(error: Exception) -> str:
    """The last line of the network's own code that ran, as ` at file.py:12 (code)`; empty where none is known."""
    for frame, number in reversed([*traceback.walk_tb(error.__traceback__)]):
        file = Path(frame.f_code.co_filename)
        if file.is_file() and not any(file.is_relative_to(other) for other in OTHERS):
            return f", at {file.name}:{number} ({linecache.getline(str(file), number).strip()})"
    return ""
