"""Accuracy of hosts with one block or another in their slot."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from paramtrans.api.hosts import Hosts
from paramtrans.api.runner import Runner, Stacked
from paramtrans.api.stacking import Params, join, take
from paramtrans.api.task import Split
from paramtrans.errors import SpecMismatch

HOSTS_AT_ONCE, EXAMPLES_AT_ONCE = 16, 500
"""Evaluation goes through hosts and examples in pieces of this size, so that its memory is bounded."""
LARGER = 4
"""Times as many of both on a GPU, which small pieces would not fill."""

SCORE = "score"
"""The measure that is the task's own."""
Measure = Callable[[Tensor, Tensor], Tensor]
"""Outputs `[hosts, examples, *outputs]` and labels `[examples, *label]` → one number for each, `[hosts, examples]`."""


def accuracies(
    runner: Runner,
    hosts: Hosts,
    blocks: Mapping[str, tuple[Stacked, Params]],
    split: Split,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] = lambda hosts: None,
) -> dict[str, Tensor]:
    """Score of each host on a whole split, with each of several blocks in its slot.

    Args:
        runner: Runs the hosts part by part.
        hosts: Former and latter around the blocks.
        blocks: By name, how the block is run, and its parameters, `[hosts, *shape]`, in the order of the hosts.
        split: The examples.
        device: Where it is computed.
        progress: Called with numbers of hosts done since its last call.

    Returns:
        By name, `[hosts]`: percent, in double precision.
    """
    return measured(runner, hosts, blocks, split, {SCORE: runner.task.score}, device, progress)[SCORE]


@torch.no_grad()
def measured(
    runner: Runner,
    hosts: Hosts,
    blocks: Mapping[str, tuple[Stacked, Params]],
    split: Split,
    measures: Mapping[str, Measure],
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] = lambda hosts: None,
) -> dict[str, dict[str, Tensor]]:
    """Several numbers of each host in one go.

    Args:
        runner: Runs the hosts part by part.
        hosts: Former and latter around the blocks.
        blocks: As in `accuracies`.
        split: The examples.
        measures: By name, what gives a number for each host and example from outputs `[hosts, batch, ...]` and labels.
        device: Where it is computed.
        progress: Called with numbers of hosts done since its last call.

    Returns:
        By measure and name, the mean over examples, `[hosts]`, in double precision.

    Raises:
        SpecMismatch: a measure does not give one number for each host and example.
    """
    sums: dict[str, dict[str, list[Tensor]]] = {measure: {name: [] for name in blocks} for measure in measures}
    whole = {name: runner.in_one_piece(block) for name, (block, _) in blocks.items()}
    larger = LARGER if torch.device(device).type == "cuda" else 1
    examples = EXAMPLES_AT_ONCE * larger
    for chosen in torch.arange(len(hosts)).split(HOSTS_AT_ONCE * larger):
        piece = hosts.pick(chosen).to(device)
        around = join({"former": piece.former, "latter": piece.latter})
        filled = {name: _on(take(params, chosen.tolist()), device) for name, (_, params) in blocks.items()}
        zero = torch.zeros(len(chosen), dtype=torch.float64, device=device)
        totals = {measure: {name: zero.clone() for name in blocks} for measure in measures}
        for start in range(0, len(split), examples):
            inputs = runner.task.to_input(split.inputs[start : start + examples].to(device))
            labels = split.labels[start : start + examples].to(device)
            entering = inputs.expand(len(chosen), *inputs.shape)
            features = runner.former(piece.former, entering) if None in whole.values() else entering
            for name, (block, _) in blocks.items():
                if in_one_piece := whole[name]:
                    outputs = in_one_piece(around | join({"block": filled[name]}), entering)
                else:
                    outputs = runner.latter(piece.latter, block(filled[name], features))
                for measure, function in measures.items():
                    totals[measure][name] += _checked(function(outputs, labels), outputs, measure).double().sum(1)
        for measure, by_name in totals.items():
            for name, total in by_name.items():
                sums[measure][name].append(total.cpu() / len(split))
        progress(len(chosen))
    return {measure: {name: torch.cat(parts) for name, parts in by.items()} for measure, by in sums.items()}


def _checked(numbers: Tensor, outputs: Tensor, measure: str) -> Tensor:
    if numbers.shape != outputs.shape[:2]:
        wanted, given = list(outputs.shape[:2]), list(numbers.shape)
        raise SpecMismatch(f"{measure}: gave numbers of shape {given}, not one for each host and example: {wanted}")
    return numbers


def _on(params: Params, device: torch.device | str) -> Params:
    return {name: tensor.to(device) for name, tensor in params.items()}
