"""What a person sees while a run goes on: a live bar on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LINE_EVERY = 10.0
"""Seconds between plain lines of one stage."""


class Stage:
    """One stage of a run, with a known amount of work; does nothing visible until subclassed."""

    def __init__(self, name: str, total: int, begun: int = 0) -> None:
        self.name, self.total, self.done = name, total, begun
        self.begun = begun
        """Work that an earlier attempt did, in no time of this one."""
        self.started = time.monotonic()

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Some of the work is done; `note` is a short remark such as the current loss."""
        self.done += amount

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started


class PlainStage(Stage):
    """A line at the start, every ten seconds, and at the end."""

    def __init__(self, name: str, total: int, console: Console, begun: int = 0) -> None:
        super().__init__(name, total, begun)
        self._console, self._last = console, self.started

    def advance(self, amount: int = 1, note: str = "") -> None:
        super().advance(amount)
        now = time.monotonic()
        if self.done < self.total and now - self._last >= LINE_EVERY:
            self._last = now
            left = self.seconds / max(1, self.done - self.begun) * (self.total - self.done)
            self._print(f"{self.done}/{self.total}, {duration(left)} left", note)

    def __enter__(self) -> Self:
        self._print(f"{self.done}/{self.total}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._print(f"done in {duration(self.seconds)}")

    def _print(self, text: str, note: str = "") -> None:
        tail = f"  {note}" if note else ""
        self._console.print(f"{self.name}: {text}{tail}", highlight=False, markup=False, soft_wrap=True)


class LiveStage(Stage):
    """A bar with the time left."""

    def __init__(self, name: str, total: int, console: Console, begun: int = 0) -> None:
        super().__init__(name, total, begun)
        columns = (
            TextColumn("{task.description:<28}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._bar = Progress(*columns, console=console)
        self._note = ""
        self._task = self._bar.add_task(name, total=total, completed=begun, note=self._note)

    def advance(self, amount: int = 1, note: str = "") -> None:
        super().advance(amount)
        self._note = note or self._note
        self._bar.update(self._task, advance=amount, note=self._note)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


class Reporter:
    """Makes stages; the default one is silent, as a library should be."""

    def stage(self, name: str, total: int, begun: int = 0) -> Stage:
        return Stage(name, total, begun)


class ConsoleReporter(Reporter):
    """Stages on a console: bars where it is a terminal, lines where it is not."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def stage(self, name: str, total: int, begun: int = 0) -> Stage:
        return (LiveStage if self._console.is_terminal else PlainStage)(name, total, self._console, begun)


def duration(seconds: float) -> str:
    """Seconds for people: 8.4 → '8 s', 200 → '3 min 20 s', 7400 → '2 h 3 min'."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
