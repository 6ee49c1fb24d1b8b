"""`paramtrans`: finds its commands through plugins, and imports one only when it is called."""

from __future__ import annotations

import _thread
import atexit
import io
import os
import signal
import sys
import threading
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

import paramtrans
from paramtrans.cli import answer
from paramtrans.errors import ParamtransError, StopRun, printable
from paramtrans.plugins.manager import components
from paramtrans.plugins.registry import Entry
from paramtrans.utils.boundary import explained, reason

if TYPE_CHECKING:
    from sys import UnraisableHookArgs
    from types import FrameType


class Commands(click.Group):
    """Subcommands from the registry. Listing them imports none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands."""
        return [entry.name for entry in _entries()]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command of this name, loaded now."""
        if name not in self.list_commands(ctx):
            return None
        command: click.Command = components().load("command", name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the arguments begin with; an unknown one is answered with names near to it."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if not args[0].startswith("-"):
                components().find("command", args[0])  # its answer has near names, and plugins that were not loaded
            raise error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with their summaries."""
        with formatter.section("Commands"):
            formatter.write_dl([(entry.name, entry.component.summary) for entry in _entries()])


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(paramtrans.__version__, prog_name="paramtrans")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def paramtrans_group(debug: bool) -> None:
    """Compress a trained model by translating the parameters of its blocks."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: Those of the command line; None: the process's own.

    Returns:
        Exit status: 0 done, 1 a defect of ours, 2 the user's mistake, 3 stopped by a plugin, 130 interrupted.
    """
    if os.environ.get("_PARAMTRANS_COMPLETE", "").startswith("bash"):
        from click.shell_completion import add_completion_class

        from paramtrans.cli.bash import BashWithEquals

        add_completion_class(BashWithEquals)
    for stream in (sys.stdout, sys.stderr):  # where letters such as × and → are not known, they are no reason to stop
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    sys.unraisablehook = _interrupted_again
    _end_in_order()
    interrupts = _note_interrupts()
    all_arguments = sys.argv[1:] if arguments is None else arguments
    arguments = [argument for argument in all_arguments if argument != "--debug"]
    try:
        with answer.reserve_output("--json" in arguments):
            status: Any = paramtrans_group.main(arguments, prog_name="paramtrans", standalone_mode=False)
        _flush()
    except (KeyboardInterrupt, click.Abort):
        return _interrupted(arguments)
    except Exception as error:
        if interrupts:  # compiled code that meets an interrupt may raise an error of its own instead
            return _interrupted(arguments)
        return _failed(error, debug="--debug" in all_arguments)
    return status if isinstance(status, int) else 0


def _failed(error: Exception, debug: bool) -> int:
    """Say what went wrong; the exit status. A defect of ours is raised again."""
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if isinstance(error, StopRun):
        click.echo(f"stopped: {error}; run the same command again to go on", err=True)
        return 3
    if not isinstance(error, ParamtransError | OSError):
        raise error
    with suppress(OSError):  # what could not be written is dropped, or Python tries again at its end
        _flush()
    if debug:
        traceback.print_exception(error)
    click.echo(_message(error), err=True)
    return 2


def _message(error: ParamtransError | OSError) -> str:
    """What is printed of an error; of the system's, which file and why."""
    if isinstance(error, OSError):
        paths = [str(path) for path in (error.filename, error.filename2) if path is not None]
        where = printable(", ".join(paths)) or "standard output, a file or a process"
        return f"error: {where}: {explained(error, 'what was finished is kept (--debug shows where this came from)')}"
    return f"error: {error}" if "\n" not in str(error) else str(error)


def _flush() -> None:
    """Write what waits for standard output; raises `OSError` where it is full or closed, and drops what waits then."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError) as error:
        sys.stdout = None  # or Python tries again at its end, and ends with a status of its own
        raise OSError(getattr(error, "errno", 0), reason(error), "standard output") from error


def _end_in_order() -> None:
    """On SIGTERM and SIGHUP end as a program does, so that temporary files go; where nobody else cares for these."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")):
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, lambda number, frame: sys.exit(128 + number))


def _note_interrupts() -> list[int]:
    """A list to which each SIGINT is added before it is a `KeyboardInterrupt`, where Python's own handler stands."""
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        signal.default_int_handler(number, frame)

    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, note)
    return noted


def _interrupted(arguments: list[str]) -> int:
    """Say how to go on, where a command does; the exit status."""
    again = "run it again without --fresh" if "--fresh" in arguments else "run the same command again"
    click.echo(f"interrupted; {again} to go on" if arguments[:1] == ["run"] else "interrupted", err=True)
    return 130


def _interrupted_again(unraisable: UnraisableHookArgs) -> None:
    """Python drops an interrupt that meets a destructor or the callback of a weak reference: it comes once more."""
    if unraisable.exc_type is KeyboardInterrupt:
        timer = threading.Timer(0.01, _interrupt)  # not at once, which would be inside this very hook
        timer.daemon = True
        timer.start()
    else:
        sys.__unraisablehook__(unraisable)


def _interrupt() -> None:
    """Interrupt the main thread, also where it waits."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        _thread.interrupt_main()


def _entries() -> list[Entry]:
    return components().of_kind("command")


def leave(status: int) -> None:
    """End the process. Of several that torchrun started, without the destructors of libraries: threads that wait for
    the other processes make one of them abort now and then, when all is done.

    Args:
        status: Its exit status.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        atexit._run_exitfuncs()
        with suppress(OSError):
            _flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    leave(main())
