"""Without numba hosts are trained by the vmap reference, which is said once; the GPU back end needs no CPU kernels."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def python(code: str) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-c", code]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=300, env=dict(os.environ), check=False)


def test_the_reference_serves_where_numba_is_missing() -> None:
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "import torch\n"
        "from torch import nn\n"
        "from paramtrans.api.modules import initial\n"
        "from paramtrans.backends.vmap import Vmap, stacked\n"
        "make = lambda: nn.Sequential(nn.Conv2d(2, 2, 3), nn.ReLU())\n"
        "runs = [stacked(make()) for _ in range(2)]\n"
        "assert all(isinstance(run, Vmap) for run in runs)\n"
        "params = {n: t.requires_grad_() for n, t in initial(make, [0, 1]).items()}\n"
        "runs[0](params, torch.randn(2, 4, 2, 5, 5), True).sum().backward()\n"
        "assert all(t.grad is not None for t in params.values())\n"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("numba is not installed") == 1


@pytest.mark.thorough
def test_nothing_but_running_a_network_imports_numba() -> None:
    done = python(
        "import sys, paramtrans.runs.run, paramtrans.zoo.zoo, paramtrans.networks.translate\n"
        "assert not {'numba', 'tensorboard'} & set(sys.modules)"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.thorough
def test_the_gpu_back_end_imports_no_kernels_of_the_cpu() -> None:
    done = python(
        "import sys, importlib.util\n"
        "if importlib.util.find_spec('triton'): import paramtrans.backends.gpu.stacked\n"
        "assert not [m for m in sys.modules if m == 'numba' or m.startswith('paramtrans.backends.cpu')]"
    )
    assert done.returncode == 0, done.stderr
