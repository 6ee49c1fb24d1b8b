"""Target blocks in hosts: accuracy, confidence intervals, and what a smaller block buys."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from scipy.special import stdtrit
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from paramtrans.blocks import BlockAdapter
from paramtrans.context import Context
from paramtrans.hosts import Hosts, Params, join, take
from paramtrans.protocols import Split, Translator
from paramtrans.specs import FeatureSpec
from paramtrans.stacked import HostRunner, Stacked

HOSTS_AT_ONCE, EXAMPLES_AT_ONCE = 16, 500
"""Evaluation goes through hosts and examples in pieces of this size, so that its memory is bounded."""
LARGER = 4
"""Times as many of both on a GPU, which small pieces would not fill."""


@dataclass(frozen=True)
class Summary:
    """Accuracies of several hosts, in percent, with the 95% t-interval of their mean over hosts."""

    mean: float
    ci95: tuple[float, float]
    min: float
    max: float
    n: int

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "ci95": list(self.ci95)}


def summarise(values: Tensor) -> Summary:
    """One value for each host, `[hosts]` → their summary."""
    values = values.double()
    n, mean = len(values), values.mean().item()
    spread = float(stdtrit(n - 1, 0.975)) * values.std().item() / n**0.5 if n > 1 else float("nan")
    return Summary(mean, (mean - spread, mean + spread), values.min().item(), values.max().item(), n)


@torch.no_grad()
def accuracies(
    runner: HostRunner,
    hosts: Hosts,
    blocks: Mapping[str, tuple[Stacked, Params]],
    split: Split,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] = lambda hosts: None,
) -> dict[str, Tensor]:
    """Score of each host on a whole split, with each of several blocks in its slot: name → `[hosts]`, percent, float64.

    `blocks` gives for each name how the block is run, and its parameters, stacked in the order of the hosts.
    `progress` is called with numbers of hosts done.
    """
    scores: dict[str, list[Tensor]] = {name: [] for name in blocks}
    whole = {name: runner.in_one_piece(block) for name, (block, _) in blocks.items()}
    larger = LARGER if torch.device(device).type == "cuda" else 1
    examples = EXAMPLES_AT_ONCE * larger
    for chosen in torch.arange(len(hosts)).split(HOSTS_AT_ONCE * larger):
        some = hosts.pick(chosen).to(device)
        around = join({"former": some.former, "latter": some.latter})
        own = {name: _on(take(params, chosen.tolist()), device) for name, (_, params) in blocks.items()}
        totals = {name: torch.zeros(len(chosen), dtype=torch.float64, device=device) for name in blocks}
        for start in range(0, len(split), examples):
            inputs = runner.task.to_input(split.inputs[start : start + examples].to(device))
            labels = split.labels[start : start + examples].to(device)
            entering = inputs.expand(len(chosen), *inputs.shape)
            features = runner.former(some.former, entering) if None in whole.values() else entering
            for name, (block, _) in blocks.items():
                if in_one_piece := whole[name]:
                    outputs = in_one_piece(around | join({"block": own[name]}), entering)
                else:
                    outputs = runner.latter(some.latter, block(own[name], features))
                totals[name] += runner.task.score(outputs, labels).double().sum(1)
        for name, total in totals.items():
            scores[name].append(total.cpu() / len(split))
        progress(len(chosen))
    return {name: torch.cat(parts) for name, parts in scores.items()}


def place(methods: Mapping[str, Mapping[str, Any]], name: str) -> float | None:
    """A method's place between random initialisation (0) and the trained target (1) by their means; None without a gap.

    `methods` are summaries by name, of the same hosts.
    """
    low, mean, high = (methods.get(each, {}).get("mean") for each in ("random_init", name, "trained_target"))
    if low is None or mean is None or high is None or not high > low or not math.isfinite(mean):
        return None
    share: float = (mean - low) / (high - low)
    return share


def _on(params: Params, device: torch.device | str) -> Params:
    return {name: tensor.to(device) for name, tensor in params.items()}


@dataclass(frozen=True)
class BlockCost:
    """What one block costs to keep and to run."""

    parameters: int
    """Trained values; running statistics are not counted."""
    flops: int
    """Floating-point operations for one example; a multiply-add is two."""
    latency_ms: float
    """Median milliseconds for a batch of 100 examples, one model, on this machine, in plain PyTorch."""


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
        flops = {name: _flops(module, example) for name, module in modules.items()}
    return {
        name: BlockCost(adapter.spec.parameters, flops[name], 1000 * statistics.median(seconds[name][1:]))
        for name, adapter in adapters.items()
    }


def translator_costs(translator: Translator, source: Params, context: Context) -> dict[str, int]:
    """Trained values of a translator, and the floating-point operations of translating one block (a stack of one)."""
    parameters = sum(p.numel() for p in translator.parameters()) if isinstance(translator, torch.nn.Module) else 0
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # fused transformer layers are not counted
    try:
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            translator.translate(source, context)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return {"parameters": parameters, "flops": int(counter.get_total_flops())}


def _flops(module: torch.nn.Module, inputs: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        module(inputs)
    return int(counter.get_total_flops())


def _seconds(module: torch.nn.Module, inputs: Tensor) -> float:
    started = time.perf_counter()
    module(inputs)
    if inputs.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def break_even(zoo_seconds: float, training_seconds: float, per_translation: float, per_target: float) -> int | None:
    """After how many translated models the zoo and the training have cost less than training (step 2) each target.

    None where a translation costs as much as step 2, so that it never pays.
    """
    saved = per_target - per_translation
    return None if saved <= 0 else int(-(-(zoo_seconds + training_seconds) // saved))
