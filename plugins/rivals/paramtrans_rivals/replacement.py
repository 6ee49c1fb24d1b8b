"""Rivals that hand over a trained target of another host (KT, Table 3)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from paramtrans.api.hosts import Hosts
from paramtrans.api.rival import Rival, RivalCase
from paramtrans.api.specs import BlockSpec, TensorKind
from paramtrans.api.stacking import Params, take
from paramtrans.utils import seeds


class Random(Rival):
    """The trained target of a random training pair."""

    needs_pairs: ClassVar[bool] = True

    def fill(self, case: RivalCase) -> Params:
        pairs, targets = _pairs(case)
        generator = torch.Generator().manual_seed(seeds.derive(case.seed, "random_replacement"))
        return take(targets, torch.randint(len(pairs), (len(case.hosts),), generator=generator).tolist())


class Greedy(Rival):
    """The trained target of the training pair whose source weights are nearest in mean squared error."""

    needs_pairs: ClassVar[bool] = True

    def fill(self, case: RivalCase) -> Params:
        pairs, targets = _pairs(case)
        distances = torch.cdist(_weights(case.hosts.source, case.source.spec), _weights(pairs.source, case.source.spec))
        return take(targets, distances.argmin(dim=1).tolist())


def _weights(source: Params, spec: BlockSpec) -> Tensor:
    """All weights of a block in a row, `[models, values]`; normalisation and biases are left out, as in the paper."""
    return torch.cat([source[t.name].flatten(1) for t in spec.tensors if t.kind is TensorKind.WEIGHT], dim=1)


def _pairs(case: RivalCase) -> tuple[Hosts, Params]:
    assert case.pairs is not None and case.pairs.target is not None  # `needs_pairs` asked for them
    return case.pairs, case.pairs.target
