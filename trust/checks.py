"""A check: how often something was tried, and how often the promise held."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Count:
    """What a check found so far."""

    check: str
    tried: int = 0
    held: int = 0
    broken: list[str] = field(default_factory=list)
    """What did not hold, a line each."""
    notes: list[str] = field(default_factory=list)
    """What was not tried and why, and figures beside the two."""

    def add(self, what: str, problems: list[str]) -> None:
        """One trial, which held if there is no problem."""
        self.many(1, [f"{what}: {'; '.join(problems)}"] if problems else [])

    def many(self, tried: int, broken: list[str]) -> None:
        """Several trials, some of which did not hold; these are told at once, because others may take long."""
        self.tried += tried
        self.held += tried - len(broken)
        self.broken += broken
        for line in broken:
            print(f"  {self.check} broken: {line}", file=sys.stderr, flush=True)

    def line(self) -> str:
        document: dict[str, object] = {"check": self.check, "tried": self.tried, "held": self.held}
        if self.notes:
            document["notes"] = self.notes
        return json.dumps(document, ensure_ascii=False)


@dataclass(frozen=True)
class Setting:
    """Where a check works, how often it tries, and its random numbers."""

    folder: Path
    trials: int
    seed: int = 0

    @property
    def random(self) -> random.Random:
        return random.Random(self.seed)


@dataclass(frozen=True)
class Check:
    """A promise that can be tried; `counts` are the trials of a test, of `make trust` and of `make trust FULL=1`."""

    name: str
    run: Callable[[Setting, Count], None]
    counts: tuple[int, int, int]

    def do(self, folder: Path, trials: int, seed: int = 0) -> Count:
        folder.mkdir(parents=True, exist_ok=True)
        count = Count(self.name)
        self.run(Setting(folder, trials, seed), count)
        return count
