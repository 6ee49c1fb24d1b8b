"""Texts that every Python carries: the docstrings of its standard library, for calibration and for tests."""

from __future__ import annotations

import inspect
import pkgutil
import sys
from collections.abc import Callable
from importlib import import_module

import torch

LEFT_OUT = ("_", "idlelib", "turtle", "this", "anti")
"""Modules that do something when they are imported, or are no modules to import, begin so."""


def by_module(
    texts_of: Callable[[list[str]], list[str]], generator: torch.Generator
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Texts of three quarters of the modules, for calibration, and of the others, for the test.

    Args:
        texts_of: Makes texts of a module's docstrings; a module without any is left out.
        generator: Draws the modules.

    Returns:
        For each module its texts, in the order drawn.
    """
    texts = {}
    for info in pkgutil.iter_modules():
        if info.name in sys.stdlib_module_names and not info.name.startswith(LEFT_OUT):
            texts[info.name] = texts_of(_docstrings(info.name))
    names = sorted(name for name in texts if texts[name])
    order = [names[i] for i in torch.randperm(len(names), generator=generator).tolist()]
    middle = 3 * len(order) // 4
    return {name: texts[name] for name in order[:middle]}, {name: texts[name] for name in order[middle:]}


def _docstrings(name: str) -> list[str]:
    """Docstrings of a module, of its classes and functions, and of its classes' methods."""
    try:
        module = import_module(name)
    except Exception:  # a module of another platform
        return []
    texts = [inspect.getdoc(module) or ""]
    for value in vars(module).values():
        if inspect.isclass(value) or inspect.isroutine(value):
            texts.append(inspect.getdoc(value) or "")
        if inspect.isclass(value):
            texts += [inspect.getdoc(method) or "" for method in vars(value).values() if callable(method)]
    return texts
