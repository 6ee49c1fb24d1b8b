"""How long `paramtrans --help` and `paramtrans plugins` take, beside Python itself: medians, and ratios to them.

python benchmarks/startup.py [repeats]
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from statistics import median

CLI = [sys.executable, "-m", "paramtrans.cli.main"]
STANDS_ON = "click, pluggy, entry points"
"""What no start can do without: the libraries of the command line, and a look at what is installed."""
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    STANDS_ON: [
        sys.executable,
        "-c",
        "import click, pluggy, importlib.metadata as m; [one.entry_points for one in m.distributions()]",
    ],
    "paramtrans --help": [*CLI, "--help"],
    "paramtrans plugins": [*CLI, "plugins"],
}


@dataclass(frozen=True)
class Took:
    """Seconds of one start: by the clock, and of the processor, which other processes disturb less."""

    wall: float
    processor: float


def measure(repeats: int) -> dict[str, list[Took]]:
    """Each repeat of each command; the commands take turns, so that a busy machine slows all alike."""
    took: dict[str, list[Took]] = {name: [] for name in COMMANDS}
    for _ in range(repeats):
        for name, command in COMMANDS.items():
            wall, processor = time.perf_counter(), _children()
            subprocess.run(command, check=True, capture_output=True)
            took[name].append(Took(time.perf_counter() - wall, _children() - processor))
    return took


def _children() -> float:
    """Seconds of the processor that ended child processes have used, as finely as the system counts them.

    Always 0 on Windows.
    """
    times = os.times()
    return times.children_user + times.children_system


def main() -> None:
    took = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 31)
    print(f"{'median of':<20} {'by the clock':>14} {'processor':>12}")
    bare = median(sample.wall for sample in took["python -c pass"])
    for name, samples in took.items():
        wall, processor = median(sample.wall for sample in samples), median(sample.processor for sample in samples)
        print(f"{name:<20} {1000 * wall:11.0f} ms {1000 * processor:9.0f} ms  {wall / bare:5.1f}× python -c pass")


if __name__ == "__main__":
    main()
