"""Every promise of docs/trust.md, tried a few times; `make trust` tries oftener."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUARDED = (
    "names_from_files",
    "outputs_replace_nothing",
    "numbers_are_finite",
    "changed_results",
    "states_of_torch",
    "content_in_words",
    "layers_keep_what_is_no_size",
)
"""Checks that can be run without what they are of."""
CHECKS = (
    "killed_at_any_moment",
    "any_damage",
    "hostile_files",
    "hostile_imports",
    "hostile_programs",
    *GUARDED,
    "fuzzed_configs",
    "fuzzed_parameters",
    "divergence_stays_alone",
    "stacks_of_any_size",
    "translators_must_be_finite",
    "other_hook_versions",
)


@pytest.fixture(scope="module")
def counts() -> dict[str, tuple[int, int]]:
    """How often each check tried, and how often the promise held. In a process of its own, as it forks."""
    done = subprocess.run(
        [sys.executable, "-m", "trust", "--few", *CHECKS],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode in (0, 1), done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    print(done.stderr)
    return {line["check"]: (line["tried"], line["held"]) for line in lines}


@pytest.mark.parametrize("check", CHECKS)
def test_the_promise_holds(counts: dict[str, tuple[int, int]], check: str) -> None:
    tried, held = counts[check]
    assert tried > 0 and held == tried


@pytest.mark.parametrize(
    "shown",
    [pytest.param([check], marks=() if check == "names_from_files" else pytest.mark.slow) for check in GUARDED],
    ids=GUARDED,
)
def test_without_its_guard_a_promise_is_seen_to_be_broken(shown: list[str]) -> None:
    command = [sys.executable, "-m", "trust", "--few", "--unguarded", *shown]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len(shown) and all(line["held"] < line["tried"] for line in lines), done.stderr


def test_every_check_is_in_the_document_and_here_or_in_make_trust() -> None:
    sys.path.insert(0, str(ROOT))
    try:
        from trust.all import CHECKS as everything
    finally:
        sys.path.remove(str(ROOT))
    document = (ROOT / "docs" / "trust.md").read_text()
    assert {check.name for check in everything} >= set(CHECKS)
    assert [check.name for check in everything if f"`{check.name}`" not in document] == []
