"""Everything a user can get wrong, as exceptions whose message is the whole answer: what, where, why, what to do."""

from __future__ import annotations

from collections.abc import Iterable


class ParamtransError(Exception):
    """Base of all errors that are not a defect of ours. The command line prints the message and exits with 2."""

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))


def printable(message: str) -> str:
    """Without control characters: names from files end up in messages, and must not act on a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in message)


class ConfigError(ParamtransError):
    """One or more mistakes in a config, each with its file and dotted path, reported together."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(map(printable, problems))
        super().__init__("\n".join(self.problems))


class UnknownName(ParamtransError):
    """A component name that no loaded plugin provides."""


class NameConflict(ParamtransError):
    """Two distributions provide a component of the same kind and name."""


class PluginLoadError(ParamtransError):
    """A plugin, or a component it announces, cannot be loaded, or raised inside a hook."""


class SpecMismatch(ParamtransError):
    """Tensors or features whose shapes do not fit together."""


class StoreError(ParamtransError):
    """A zoo, a translator or a run folder that cannot be read or written as it stands."""


class Damaged(StoreError):
    """A file that is there but is not what was written: truncated, changed, or of another kind."""


class DataError(ParamtransError):
    """A data set that is missing, damaged, or cannot be fetched."""


class OutOfMemory(ParamtransError):
    """More memory was needed than there is."""


class TrainingError(ParamtransError):
    """Training that left the finite numbers or cannot go on."""


class StopRun(ParamtransError):
    """Raised by a lifecycle hook to end a run here. What is done stays, and the same run goes on from there.

    >>> raise StopRun("the night is over")
    Traceback (most recent call last):
    paramtrans.errors.StopRun: the night is over
    """
