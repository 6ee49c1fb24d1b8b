"""Every test has a cache of its own, and plugins and settings as if the process had just started."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from paramtrans.config import Config
    from paramtrans.plugins import Plugins, Registry

# Kernels for GPUs run in Triton's interpreter, on the CPU; it must know before it is first imported.
os.environ.setdefault("TRITON_INTERPRET", "1")
SUPPORT = Path(__file__).parent / "support"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny tensors: threads only cost time, here and in subprocesses
if threading.current_thread() is threading.main_thread():
    # What was started in the background (`make test &`) ignores interrupts, and so would all that tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


TRIALS = pytest.StashKey[dict[tuple[str, str], list[str]]]()
"""Trials of each component that have been met."""


def pytest_itemcollected(item: pytest.Item) -> None:
    """The conformance of a component: its first trial is tested fast, further ones in sweeps."""
    if getattr(item, "originalname", "") != "test_conformance":
        return
    subject = item.callspec.params["subject"]  # type: ignore[attr-defined]
    trials = item.config.stash.setdefault(TRIALS, {}).setdefault((subject.kind, subject.name), [])
    if subject.title not in trials:
        trials.append(subject.title)
    if subject.title != trials[0]:
        item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARAMTRANS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def support() -> Path:
    """Where the tiny task and its config stand."""
    return SUPPORT


@pytest.fixture
def fresh_plugins() -> Iterator[Callable[[], Plugins]]:
    """Makes this process's plugin manager anew, and leaves none behind."""
    from paramtrans import plugins

    def renew() -> Plugins:
        plugins.plugins.cache_clear()
        return plugins.plugins()

    modules = set(sys.modules)
    yield renew
    plugins.plugins.cache_clear()
    _forget_builder()
    for name in {name for name in sys.modules if name.startswith("paramtrans_file_")} - modules:
        del sys.modules[name]


@pytest.fixture
def tiny_plugins(fresh_plugins: Callable[[], Plugins]) -> Plugins:
    """This process's plugins, the tiny task among them."""
    _forget_builder()
    loaded = fresh_plugins()
    loaded.load_file(SUPPORT / "tiny_task.py")
    return loaded


@pytest.fixture
def linear_blocks(fresh_plugins: Callable[[], Plugins]) -> Registry:
    """This process's registry, with an adapter that recognises Linear layers in a row."""
    loaded = fresh_plugins()
    loaded.load_file(SUPPORT / "linear_blocks.py")
    return loaded.registry()


@pytest.fixture
def tiny_config(tiny_plugins: Plugins, tmp_path: Path) -> Callable[..., Config]:
    """Makes the tiny config, with `--set` settings; its run stands in the test's own folder."""
    from paramtrans import config

    def make(*settings: str, **run: Any) -> Config:
        places = [f"run.dir={run.get('dir', tmp_path / 'run')}", "run.device=cpu"]
        return config.load(SUPPORT / "tiny.toml", tiny_plugins.registry(), [*places, *settings])

    return make


def _forget_builder() -> None:
    """A worker keeps the parts of its last job, and with them the data of another test."""
    if jobs := sys.modules.get("paramtrans.zoo.jobs"):
        jobs._builder.cache_clear()
