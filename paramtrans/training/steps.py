"""What one target block is trained with, and what is drawn for one step."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.optim import Optimizer

from paramtrans.api.objective import Objective
from paramtrans.api.runner import Runner
from paramtrans.api.stacking import Params
from paramtrans.translators.base import LearnedTranslator

STATE = {"step", "exp_avg", "exp_avg_sq"}
"""What Adam keeps of a parameter."""


def take_up(optimizer: Optimizer, saved: Params) -> None:
    """Give an optimiser its state again.

    Args:
        optimizer: A fresh one, of one group of parameters.
        saved: Its state before, named `NUMBER OF THE PARAMETER.NAME`, each of the parameter's shape or a scalar.

    Raises:
        ValueError, LookupError: it is the state of other parameters.
    """
    document, parameters = optimizer.state_dict(), optimizer.param_groups[0]["params"]
    for name, value in saved.items():
        number, _, key = name.partition(".")
        if key not in STATE or value.shape not in ((), parameters[int(number)].shape):
            raise ValueError(f"{name} of shape {list(value.shape)} is no state of its parameter")
        document["state"].setdefault(int(number), {})[key] = value
    if any(state.keys() != STATE for state in document["state"].values()):
        raise ValueError(f"a parameter lacks some of {', '.join(sorted(STATE))}")
    optimizer.load_state_dict(document)


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
