"""Rivals that look at nothing."""

from __future__ import annotations

import torch

from paramtrans.api.modules import initial
from paramtrans.api.rival import Rival, RivalCase
from paramtrans.api.stacking import Params
from paramtrans.utils import seeds


class ZeroBlock(Rival):
    """Every parameter is zero, so that only the block's residual path is left; variances are one."""

    def fill(self, case: RivalCase) -> Params:
        count = len(case.hosts)
        return {t.name: torch.full((count, *t.shape), float(t.positive)) for t in case.target.spec.tensors}


class RandomInit(Rival):
    """PyTorch's default initialisation of the target block, from a seed of each host's own (KT, Table 3)."""

    def fill(self, case: RivalCase) -> Params:
        host_seeds = [seeds.derive(case.seed, "random_init", seed) for seed in case.hosts.seeds]
        return initial(case.target.module, host_seeds)
