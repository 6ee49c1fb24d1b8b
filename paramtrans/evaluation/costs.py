"""What blocks, translators and networks cost to keep and to run."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.module_tracker import ModuleTracker

from paramtrans.api.adapter import BlockAdapter
from paramtrans.api.context import Context
from paramtrans.api.records import BlockCost as BlockCost
from paramtrans.api.specs import FeatureSpec
from paramtrans.api.stacking import Params
from paramtrans.api.translator import Translator
from paramtrans.errors import SpecMismatch
from paramtrans.utils.boundary import reason
from paramtrans.utils.fast_path import layer_by_layer

logger = logging.getLogger(__name__)


class TranslatorCost(NamedTuple):
    """What a translator costs to keep and to run."""

    parameters: int
    """Trained values."""
    flops: int | None
    """Floating-point operations of translating one block; None where PyTorch cannot count them."""


def block_costs(
    adapters: dict[str, BlockAdapter], slot: FeatureSpec, device: torch.device | str = "cpu"
) -> dict[str, BlockCost]:
    """Cost of each block at the slot; latencies are measured in turns, so that a noisy machine is noisy for all."""
    modules = {name: adapter.module().eval().to(device) for name, adapter in adapters.items()}
    example, batch = torch.rand(1, *slot.shape, device=device), torch.rand(100, *slot.shape, device=device)
    seconds: dict[str, list[float]] = {name: [] for name in modules}
    with torch.no_grad():
        for _ in range(21):
            for name, module in modules.items():
                seconds[name].append(_seconds(module, batch))
        flops = {name: operations(partial(module, example), f"{name} block") for name, module in modules.items()}
    return {
        name: BlockCost(
            parameters=adapter.spec.parameters,
            flops=flops[name],
            latency_ms=1000 * statistics.median(seconds[name][1:]),
        )
        for name, adapter in adapters.items()
    }


def translator_costs(translator: Translator, source: Params, context: Context) -> TranslatorCost:
    """What a translator costs, for one block (a stack of one)."""
    parameters = sum(p.numel() for p in translator.parameters()) if isinstance(translator, torch.nn.Module) else 0
    return TranslatorCost(parameters, operations(lambda: translator.translate(source, context), "the translator"))


def count(run: Callable[[], object]) -> int:
    """Floating-point operations of a call, as PyTorch counts them (a multiply-add is two).

    Attention, transformer and recurrent layers run unfused meanwhile, because fused ones are counted as nothing.

    Args:
        run: The call.

    Raises:
        Exception: whatever PyTorch's counter, or the call, raises.
    """
    with (
        layer_by_layer(),
        sdpa_kernel(SDPBackend.MATH),
        torch.backends.mkldnn.flags(False, None, None, None),  # None: as it is
        torch.backends.cudnn.flags(enabled=False),
        _counter() as counter,
    ):
        run()
    return int(counter.get_total_flops())


def _counter() -> FlopCounterMode:
    """PyTorch's counter without its hooks into modules: these fail on views of parameters where gradients are off."""
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = cast(ModuleTracker, _NoModules())
    return counter


class _NoModules(nullcontext[None]):
    """In place of what tells a counter which modules it is in."""

    parents = frozenset({"Global"})


def operations(run: Callable[[], object], what: str) -> int | None:
    """What `count` says; None, with a warning, where PyTorch's counter fails."""
    try:
        return count(run)
    except (RuntimeError, AssertionError, NotImplementedError, KeyError, TypeError) as error:
        logger.warning("%s: its operations are left out, as PyTorch cannot count them: %s", what, reason(error))
        return None


def _seconds(module: torch.nn.Module, inputs: Tensor) -> float:
    started = time.perf_counter()
    module(inputs)
    if inputs.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def break_even(zoo_seconds: float, training_seconds: float, per_translation: float, per_target: float) -> int | None:
    """After how many translated models the zoo and the training have cost less than step 2 on each.

    Args:
        zoo_seconds: What the zoo took to train.
        training_seconds: What the translator took to train.
        per_translation: Seconds that one translation takes.
        per_target: Seconds that step 2 takes for one model.

    Returns:
        Their number; None where a translation costs as much as step 2, so that it never pays.
    """
    saved = per_target - per_translation
    return None if saved <= 0 else int(-(-(zoo_seconds + training_seconds) // saved))


def parameters(network: nn.Module) -> int:
    """Trained values in a network."""
    return sum(parameter.numel() for parameter in network.parameters())


def flops(adapter: BlockAdapter, shape: Sequence[int]) -> int:
    """Floating-point operations that a block takes, as PyTorch counts them.

    Args:
        adapter: The block.
        shape: That of the features that enter it, batch first.

    Raises:
        SpecMismatch: PyTorch's counter fails.
    """
    with torch.device("meta"), torch.no_grad():
        module, features = adapter.module().eval(), torch.empty(tuple(shape))
        counted = operations(lambda: module(features), type(adapter).__name__)
    if counted is None:
        raise SpecMismatch(f"operations of {type(adapter).__name__} cannot be counted; give a budget of parameters")
    return counted
