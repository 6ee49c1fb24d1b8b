"""For the tests of the core and of the plugins: which of them run networks by compiled kernels."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent
COMPILING = {"kernels", "docs", "distributed", "browser", "slow"}
"""Markers of tests that run networks by kernels, as users do; so do all commands in `tests/e2e`."""
SINGLE = ("tests/unit", "tests/testing", "plugins")
"""Where tests of single parts stand."""
VARIED = ("tests/e2e/test_examples.py", "tests/e2e/test_paper.py", "tests/docs/test_shell.py")
"""Many configs, each with networks of its own sizes."""

LOOKED_AT = ("test_report.py", "test_sweep.py", "test_other_tasks.py")
"""Tests of single parts that look at figures."""

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny tensors: threads only cost time, here and in subprocesses


@pytest.fixture(autouse=True)
def _reference(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests run networks by vmap: a kernel for each size they use would take seconds to compile."""

    def stands_in(places: tuple[str, ...]) -> bool:
        return any(request.path.is_relative_to(ROOT / place) for place in places)

    compiling = any(request.node.get_closest_marker(marker) for marker in COMPILING)
    if stands_in(VARIED) or (stands_in(SINGLE) and not compiling):
        monkeypatch.setattr("paramtrans.backends.vmap._has_numba", lambda: False)


@pytest.fixture(autouse=True)
def _without_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs whose pages nobody looks at draw no figures: they would take a third of the time."""
    if request.node.get_closest_marker("pipeline") and request.path.name not in LOOKED_AT:
        monkeypatch.setattr("paramtrans.report.html._figures", lambda result, history, maps: {})


@pytest.hookimpl(trylast=True)
def pytest_itemcollected(item: pytest.Item) -> None:
    """That kernels compute what plain modules do is tried with kernels, for every block; executors train in processes
    of their own, which have them too."""
    if getattr(item, "originalname", "") != "test_conformance":
        return
    if item.callspec.params["check"].name in ("stacked_equals_plain", "does_every_job"):  # type: ignore[attr-defined]
        item.add_marker(pytest.mark.kernels)
