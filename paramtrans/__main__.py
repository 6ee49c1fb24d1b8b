"""`python -m paramtrans` is the command `paramtrans`."""

from __future__ import annotations

from paramtrans.cli.main import leave, main

if __name__ == "__main__":
    leave(main())
