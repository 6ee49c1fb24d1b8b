"""Runs and sweeps: their folders, their plans, and finished ones side by side. `run` itself is `paramtrans.run`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paramtrans.utils.lazy import face

if TYPE_CHECKING:
    from paramtrans.runs.folder import RunFolder as RunFolder
    from paramtrans.runs.run import Run as Run, RunResult as RunResult
    from paramtrans.runs.sweep import Sweep as Sweep, SweepResult as SweepResult
else:
    __getattr__, __dir__, __all__ = face(
        __name__,
        {
            "folder": ["RunFolder"],
            "run": ["Run", "RunResult"],
            "sweep": ["Sweep", "SweepResult"],
        },
    )
