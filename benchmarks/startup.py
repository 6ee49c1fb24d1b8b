"""How long `paramtrans --help` and `paramtrans plugins` take, beside Python itself: medians, and ratios to them.

python benchmarks/startup.py [repeats]
"""

from __future__ import annotations

import subprocess
import sys
import time
from statistics import median

CLI = [sys.executable, "-m", "paramtrans.cli.main"]
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "paramtrans --help": [*CLI, "--help"],
    "paramtrans plugins": [*CLI, "plugins"],
}


def measure(repeats: int) -> dict[str, list[float]]:
    """Seconds of each repeat of each command; the commands take turns, so that a busy machine slows all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(repeats):
        for name, command in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - started)
    return seconds


def main() -> None:
    seconds = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 31)
    bare = median(seconds["python -c pass"])
    for name, found in seconds.items():
        print(f"{name:<20} {1000 * median(found):6.0f} ms  {median(found) / bare:5.1f}× python -c pass")


if __name__ == "__main__":
    main()
