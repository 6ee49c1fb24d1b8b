"""What a run is made with: versions of packages, and the kind of machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from paramtrans.api.records import Machine

PACKAGES = ("paramtrans", "torch", "torchvision", "numpy", "safetensors", "pluggy", "pydantic")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on, as they are here."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def other_versions(then: Mapping[str, str]) -> list[str]:
    """What is here in another version than then: "torch 2.11, here 2.14"."""
    here = versions()
    return [f"{name} {before}, here {here[name]}" for name, before in then.items() if here.get(name, before) != before]


def machine(device: str) -> Machine:
    """What kind of processor this is, and how many of its cores this process may use, beside the run's `device`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(device=device, processor=platform.machine(), cores=cores)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
