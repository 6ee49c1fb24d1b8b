"""Options that several commands share, so that they mean the same everywhere."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from paramtrans.plugins.manager import plugins

Command = TypeVar("Command", bound=Callable[..., Any])


class Positive(click.FloatRange):
    """A finite number above 0, or from there on. (A plain range of click's lets NaN and infinity through.)"""

    name = "number"

    def __init__(self, also_zero: bool = False) -> None:
        super().__init__(min=0, min_open=not also_zero)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number.", param, ctx)
        return number


class FilePath(click.Path):
    """A path in which `~` is the user's home folder, also behind `--html=`, where shells leave it as it is."""

    def __init__(self, file_okay: bool = True) -> None:
        super().__init__(path_type=Path, file_okay=file_okay)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        text = os.fspath(value)
        if "\0" in text:
            self.fail("a path has no zero byte in it", param, ctx)
        if text.startswith("~"):
            from paramtrans.storage.cache import at_home  # imports more than a command's help needs

            value = at_home(text, f"for a folder of this name here write ./{text}")
        return super().convert(value, param, ctx)


def json_flag(command: Command) -> Command:
    """`--json`: one JSON document on standard output instead of what people read; passed on as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON to standard output.")(command)


def force_flag(command: Command) -> Command:
    """`--force`: write over files that are read here, or are a run's; passed on as `force`."""
    text = "Write even over a file that is read here, or is a run's."
    return click.option("--force", is_flag=True, help=text)(command)


def quiet_flag(command: Command) -> Command:
    """`--quiet`: nothing on standard error but errors; passed on as `quiet`."""
    return click.option("--quiet", is_flag=True, callback=_quieten, help="No progress and no warnings.")(command)


def plugin_files(command: Command) -> Command:
    """`--plugin FILE`, any number of times: loaded before the command begins."""
    return click.option(
        "--plugin",
        multiple=True,
        metavar="FILE",
        type=FilePath(),
        callback=_load,
        expose_value=False,
        help="Add a plugin of one file; may be given several times.",
    )(command)


def _quieten(context: click.Context, parameter: click.Parameter, value: bool) -> bool:
    logging.captureWarnings(value)  # those of Python and of other libraries are warnings too
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.ERROR if value else logging.WARNING)
    return value


def _load(context: click.Context, parameter: click.Parameter, files: tuple[Path, ...]) -> None:
    if not context.resilient_parsing:  # a shell that completes a line must not run what is on it
        for file in files:
            plugins().load_file(file)
