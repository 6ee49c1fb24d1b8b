"""What any package may use: progress that a person sees, seeds, memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paramtrans.utils.lazy import face

if TYPE_CHECKING:
    from paramtrans.utils.progress import ConsoleReporter as ConsoleReporter, Reporter as Reporter
else:
    __getattr__, __dir__, __all__ = face(
        __name__,
        {
            "progress": ["ConsoleReporter", "Reporter"],
        },
    )
