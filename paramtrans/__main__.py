"""`python -m paramtrans` is the command `paramtrans`."""

from __future__ import annotations

import sys

from paramtrans.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
