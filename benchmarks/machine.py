"""The machine that measures, in words."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

LOAD = os.getloadavg()[0]
"""Processes that ran or wanted to in the minute before this program began: what else the machine did."""


def words(device: str = "cpu") -> str:
    """Processor, cores that may be used, and how busy it was when the program began; of a GPU its name."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name()
    return f"{_processor()}, {torch.get_num_threads()} threads on {_cores()} cores, load {LOAD:.1f} before"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
