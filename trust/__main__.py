"""`python -m trust [--full] [CHECK …]`: one JSON line a check; what did not hold goes to standard error."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from trust.all import CHECKS
from trust.guards import WITHOUT


def main() -> int:
    """Exit status 1 where a promise did not hold."""
    parser = argparse.ArgumentParser(prog="python -m trust", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="CHECK", help=", ".join(check.name for check in CHECKS))
    parser.add_argument("--full", action="store_true", help="the full counts, which take half an hour")
    parser.add_argument("--few", action="store_true", help="the counts of the tests, which take a minute")
    parser.add_argument("--trials", type=int, help="a count of one's own")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments, damages and documents")
    parser.add_argument("--unguarded", action="store_true", help="without the guard, to see that the check fails")
    chosen = parser.parse_args()
    for name in chosen.names if chosen.unguarded else ():
        WITHOUT[name]()
    folder = Path(tempfile.mkdtemp(prefix="trust-"))
    folder.chmod(0o755)  # a check becomes another user
    broken = 0
    try:
        for check in CHECKS:
            if chosen.names and check.name not in chosen.names:
                continue
            started, before = time.monotonic(), _cpu()
            count = check.do(
                folder / check.name, chosen.trials or check.counts[0 if chosen.few else 1 + chosen.full], chosen.seed
            )
            print(count.line(), flush=True)
            spent = f"{time.monotonic() - started:.0f} s, {_cpu() - before:.0f} s of a core"
            print(f"{check.name}: {spent}", file=sys.stderr)
            broken += count.tried - count.held
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if broken else 0


def _cpu() -> float:
    """Seconds of a core that this process and those it has waited for took so far."""
    return sum(used.user + used.system + used.children_user + used.children_system for used in [os.times()])


if __name__ == "__main__":
    sys.exit(main())
