"""The conformance kit: what each kind of component promises, checked. For the tests of plugins, and `paramtrans check`.

from paramtrans.testing import conformance

test_conformance = conformance("my-distribution")
"""

from paramtrans.testing.checks import CHECKS, Check, CheckFailed, Subject
from paramtrans.testing.suite import Result, checks, conformance, results, subjects

__all__ = ["CHECKS", "Check", "CheckFailed", "Result", "Subject", "checks", "conformance", "results", "subjects"]
