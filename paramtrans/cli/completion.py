"""Completions for a shell: names of components, paths inside a config, folders of runs."""

from __future__ import annotations

from collections.abc import Iterator
from types import UnionType
from typing import TYPE_CHECKING, Any, get_args, get_origin

from paramtrans.plugins.manager import components

if TYPE_CHECKING:
    import click


def component_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of all components that begin with `incomplete`."""
    return sorted({entry.name for entry in components() if entry.name.startswith(incomplete)})


def settings(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Any]:
    """For `--set`: dotted paths of the config; behind `translator.name=` and the like, names of components."""
    from click.shell_completion import CompletionItem

    from paramtrans.config.components import SINGLE
    from paramtrans.config.schema import Config

    path, equals, typed = incomplete.partition("=")
    if not equals:
        return [CompletionItem(dotted_path) for dotted_path in _paths(Config) if dotted_path.startswith(path)]
    part, _, key = path.rpartition(".")
    if key != "name" or part not in SINGLE:
        return []
    names = (entry.name for entry in components().of_kind(SINGLE[part]))
    return [CompletionItem(f"{path}={name}") for name in names if name.startswith(typed)]


def _paths(model: Any, prefix: str = "") -> Iterator[str]:
    """Every dotted path at which a model has a value."""
    for name, field in model.model_fields.items():
        sections = [part for part in get_args(field.annotation) or [field.annotation] if hasattr(part, "model_fields")]
        if sections and get_origin(field.annotation) in (None, UnionType):  # a section, or one that may be left out
            yield from _paths(sections[0], f"{prefix}{name}.")
        else:
            yield prefix + name
