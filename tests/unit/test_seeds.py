"""Derived seeds: the same everywhere, different for every use."""

from __future__ import annotations

import subprocess
import sys

from hypothesis import given, strategies as st

from paramtrans.utils.seeds import derive


def test_seeds_never_change_from_version_to_version() -> None:
    """Golden values: zoos in people's caches were made from them."""
    assert derive(0, "host", "train", 3) == 3883449600104110487
    assert derive(1) == 3874038210105081456


def test_seeds_are_the_same_in_another_process() -> None:
    code = "from paramtrans.utils.seeds import derive; print(derive(5, 'epoch', 7))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert int(done.stdout) == derive(5, "epoch", 7)


@given(seed=st.integers(0, 2**80), names=st.lists(st.text() | st.integers(), max_size=4))
def test_any_seed_and_names_give_a_seed_torch_takes(seed: int, names: list[str | int]) -> None:
    assert 0 <= derive(seed, *names) < 2**63


def test_different_uses_never_share_a_seed() -> None:
    roles = [derive(seed, "host", role, n) for seed in range(5) for role in ("train", "report") for n in range(500)]
    assert len(set(roles)) == len(roles)


def test_names_are_told_apart_from_their_concatenation() -> None:
    assert len({derive(0, "ab", "c"), derive(0, "a", "bc"), derive(0, "abc"), derive(0, "a", "b", "c")}) == 4
