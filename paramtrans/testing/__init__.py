"""The conformance kit: what each kind of component promises, checked. For the tests of plugins, and `paramtrans check`.

from paramtrans.testing import conformance

test_conformance = conformance("my-distribution")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paramtrans.utils.lazy import face

if TYPE_CHECKING:
    from paramtrans.testing.check import Check as Check, CheckFailed as CheckFailed, Subject as Subject
    from paramtrans.testing.suite import (
        CHECKS as CHECKS,
        Result as Result,
        checks as checks,
        conformance as conformance,
        results as results,
        subjects as subjects,
    )
else:
    # `CHECKS` is complete once the suite, which imports all of them, is imported.
    __getattr__, __dir__, __all__ = face(
        __name__,
        {
            "check": ["Check", "CheckFailed", "Subject"],
            "suite": ["CHECKS", "Result", "checks", "conformance", "results", "subjects"],
        },
    )
