"""What one target block is trained with, and what is drawn for one step."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from paramtrans.api.objective import Objective
from paramtrans.api.runner import Runner
from paramtrans.api.stacking import Params
from paramtrans.translators.base import LearnedTranslator


@dataclass(frozen=True)
class TrainingStep:
    """What a step trains for one target block: the translator as it writes that block, and what judges it there."""

    translator: LearnedTranslator
    runner: Runner
    objectives: list[tuple[float, Objective]]


@dataclass(frozen=True)
class Drawn:
    """What chance gave one step, in the order of its hosts. All of it is drawn before hosts are shared out and cut into
    slices, so that it is the same however that is done."""

    hosts: list[int]
    reading: Params
    target: Params | None
    examples: Tensor | None
    """Numbers of training examples `[hosts, n]`; None unless an objective asks for some."""
