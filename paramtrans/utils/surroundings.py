"""The state of the process that others share with us: pinned while we compute, restored after plugins and after us."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

NOBODYS_ADVICE = "There is a performance drop because we have not yet implemented the batching rule"
"""How warnings begin that no user can do something about: those of operations that vmap runs one by one."""
_one = threading.RLock()
"""What is pinned is the process's, so that threads take turns."""


@contextmanager
def pinned() -> Iterator[None]:
    """Within it torch computes as by default: float32, on the CPU unless told, without autocast and inference mode.

    Whatever is drawn within, the caller's random numbers go on as if nothing had been. Advice of torch's to those who
    write it is not shown.
    """
    import torch

    with _one, restored(), warnings.catch_warnings(), ExitStack() as stack:
        warnings.filterwarnings("ignore", NOBODYS_ADVICE)
        torch.set_default_dtype(torch.float32)
        cuda = torch.cuda.is_initialized()
        stack.enter_context(torch.inference_mode(False))
        if torch.get_default_device().type != "cpu":  # where it is, Python would be asked at every operation
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(torch.random.fork_rng(devices=[torch.cuda.current_device()] if cuda else []))
        # Weights that autocast has cast are kept until its outermost context ends, as if they did not change.
        stack.callback(torch.set_autocast_cache_enabled, torch.is_autocast_cache_enabled())
        torch.set_autocast_cache_enabled(False)
        for kind in ("cpu", "cuda") if cuda else ("cpu",):
            stack.enter_context(torch.autocast(kind, enabled=False))
        yield


@contextmanager
def restored() -> Iterator[None]:
    """Whatever is done within, the current folder, torch's default type and device and its modes are as before."""
    folder = _folder()
    torch = sys.modules.get("torch")
    before = None if torch is None else (torch.get_default_dtype(), torch.is_grad_enabled())
    device = None if torch is None else torch.get_default_device()
    try:
        yield
    finally:
        if folder is not None and _folder() != folder:
            with contextlib.suppress(OSError):
                os.chdir(folder)
        if torch is not None and before is not None:
            if torch.get_default_dtype() != before[0]:
                torch.set_default_dtype(before[0])
            if torch.is_grad_enabled() != before[1]:
                torch.set_grad_enabled(before[1])
            if torch.get_default_device() != device:
                torch.set_default_device(device)


def _folder() -> str | None:
    """The current folder; None where it is no more."""
    try:
        return os.getcwd()
    except OSError:
        return None
