"""Accuracy of hosts with one block or another in their slot."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from paramtrans.api.hosts import Hosts
from paramtrans.api.runner import Runner, Stacked
from paramtrans.api.stacking import Params, join, take
from paramtrans.api.task import Split

HOSTS_AT_ONCE, EXAMPLES_AT_ONCE = 16, 500
"""Evaluation goes through hosts and examples in pieces of this size, so that its memory is bounded."""
LARGER = 4
"""Times as many of both on a GPU, which small pieces would not fill."""


@torch.no_grad()
def accuracies(
    runner: Runner,
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


def _on(params: Params, device: torch.device | str) -> Params:
    return {name: tensor.to(device) for name, tensor in params.items()}
