"""What hosts reach with one block or another in their slot, by any metric."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from paramtrans.api.hosts import Hosts
from paramtrans.api.metric import Metric
from paramtrans.api.runner import Runner, Stacked
from paramtrans.api.stacking import Params, join, take
from paramtrans.api.task import Split
from paramtrans.errors import SpecMismatch

HOSTS_AT_ONCE, EXAMPLES_AT_ONCE = 16, 500
"""Evaluation goes through hosts and examples in pieces of this size, so that its memory is bounded."""
LARGER = 4
"""Times as many of both on a GPU, which small pieces would not fill."""


@torch.no_grad()
def measured(
    runner: Runner,
    hosts: Hosts,
    blocks: Mapping[str, tuple[Stacked, Params]],
    split: Split,
    metrics: Mapping[str, Metric],
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] = lambda hosts: None,
) -> dict[str, dict[str, Tensor]]:
    """Metrics of each host on a whole split, with each of several blocks in its slot, in one go.

    Args:
        runner: Runs the hosts part by part.
        hosts: Former and latter around the blocks.
        blocks: By name, how the block is run, and its parameters, `[hosts, *shape]`, in the order of the hosts.
        split: The examples.
        metrics: By name, what is measured.
        device: Where it is computed.
        progress: Called with numbers of hosts done since its last call.

    Returns:
        By metric and name of the block, `[hosts]`, in double precision.

    Raises:
        SpecMismatch: a metric does not give something for each host and example, or one number for each host.
    """
    values: dict[str, dict[str, list[Tensor]]] = {metric: {name: [] for name in blocks} for metric in metrics}
    larger = LARGER if torch.device(device).type == "cuda" else 1
    for chosen in torch.arange(len(hosts)).split(HOSTS_AT_ONCE * larger):
        piece = hosts.pick(chosen).to(device)
        filled = {name: (block, _on(take(params, chosen.tolist()), device)) for name, (block, params) in blocks.items()}
        numbers: dict[tuple[str, str], list[Tensor]] = {(metric, name): [] for metric in metrics for name in blocks}
        for name, outputs, labels in _outputs(runner, piece, filled, split, EXAMPLES_AT_ONCE * larger):
            for metric, measuring in metrics.items():
                counted = measuring.measure(outputs, labels)
                _check(metric, counted.shape[:2], outputs.shape[:2], "one for each host and example")
                numbers[metric, name].append(counted.cpu())
        for (metric, name), parts in numbers.items():
            combined = metrics[metric].combine(torch.cat(parts, dim=1).double())
            _check(metric, combined.shape, chosen.shape, "one for each host")
            values[metric][name].append(combined)
        progress(len(chosen))
    return {metric: {name: torch.cat(parts) for name, parts in by_name.items()} for metric, by_name in values.items()}


def _outputs(
    runner: Runner, hosts: Hosts, blocks: Mapping[str, tuple[Stacked, Params]], split: Split, examples: int
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name of the block, outputs and labels, so many examples at a time."""
    around = join({"former": hosts.former, "latter": hosts.latter})
    device = next(iter(around.values())).device
    whole = {name: runner.in_one_piece(block) for name, (block, _) in blocks.items()}
    for start in range(0, len(split), examples):
        inputs = runner.task.to_input(split.inputs[start : start + examples].to(device))
        labels = split.labels[start : start + examples].to(device)
        entering = inputs.expand(len(hosts), *inputs.shape)
        features = runner.former(hosts.former, entering) if None in whole.values() else entering
        for name, (block, params) in blocks.items():
            if in_one_piece := whole[name]:
                yield name, in_one_piece(around | join({"block": params}), entering), labels
            else:
                yield name, runner.latter(hosts.latter, block(params, features)), labels


def _check(metric: str, shape: torch.Size, wanted: torch.Size, what: str) -> None:
    if shape != wanted:
        raise SpecMismatch(f"{metric}: gave numbers of shape {list(shape)}, not {what}: {list(wanted)}")


def _on(params: Params, device: torch.device | str) -> Params:
    return {name: tensor.to(device) for name, tensor in params.items()}
