"""Networks translated by all processes that torchrun started, or by one: `shared_inputs.py FILE.safetensors`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed
from safetensors.torch import save_file
from torch import Tensor, nn

import paramtrans
from paramtrans.networks.units import widths
from paramtrans.utils.distributed import process_group


class Attention(nn.Module):
    """One layer of attention behind an embedding by a matrix, with a feed-forward block behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.queries, self.keys, self.values = (nn.Linear(8, 8) for _ in range(3))
        self.out, self.up, self.down = nn.Linear(8, 8), nn.Linear(8, 12), nn.Linear(12, 8)
        self.scale = 8**-0.5

    def forward(self, x: Tensor) -> Tensor:
        weights = (self.queries(x) @ self.keys(x).mT * self.scale).softmax(-1)
        x = x + self.out(weights @ self.values(x))
        return x + self.down(self.up(x).relu())


def convolutional() -> nn.Module:
    """With a BatchNorm, and a Linear that reads more values than there are rows."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 32, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 36, 20), nn.ReLU(), nn.Linear(20, 4),
    )  # fmt: skip


def inputs(shape: Sequence[int], sizes: Sequence[int]) -> list[Tensor]:
    """Batches of these sizes."""
    generator = torch.Generator().manual_seed(1)
    return list(torch.randn(sum(sizes), *shape, generator=generator, dtype=torch.double).split(list(sizes)))


CASES = {
    "convolutional": (convolutional, inputs((3, 6, 6), (16, 7, 1, 1, 15)), {"ratio": 0.5}),
    # Of fewer than 32 examples none is kept aside; the second process has one alone, of odd number.
    "few": (convolutional, inputs((3, 6, 6), (7, 1)), {"ratio": 0.5}),
    "by measured loss": (
        convolutional,
        inputs((3, 6, 6), (20, 20)),
        {"widths": paramtrans.Allotment(6000, shares=(0.75, 0.5, 0.25))},
    ),
    "by measured time": (
        convolutional,
        inputs((3, 6, 6), (20, 20)),
        {"widths": paramtrans.LatencyBudget(150.0)},
    ),
    "attention": (Attention, inputs((5, 8), (20, 20)), {"ratio": 0.5, "query_key": 0.5}),
}
"""Networks in double precision, batches, and what is asked for."""


@torch.no_grad()
def translated(name: str) -> dict[str, Tensor]:
    """Of a case's smaller network the tensors by name, the errors, and what it gives."""
    make, batches, asked = CASES[name]
    torch.manual_seed(0)
    # In place of a clock: the second process is slower.
    slower = 1 + process_group().rank / 4
    widths.latency = lambda network, _: slower * sum(p.numel() for p in network.parameters()) / 100
    network = make().double().eval()
    small = paramtrans.translate(network, calibrate=batches, distributed=True, **asked)
    errors = [group.feature_error or 0.0 for group in small.paramtrans_blocks]
    found = {"errors": torch.tensor(errors, dtype=torch.double), "outputs": torch.cat([small(x) for x in batches])}
    return {**small.state_dict(), **found}


def main() -> None:
    """Write what is found of all cases; every process must have the same. The group is the script's own."""
    torch.distributed.init_process_group("gloo")
    tensors = {f"{case}.{name}": tensor.contiguous() for case in CASES for name, tensor in translated(case).items()}
    processes = process_group()
    for name, tensor in tensors.items():
        assert torch.equal(processes.follow(tensor.clone()), tensor), name
    if processes.leads:
        save_file(tensors, sys.argv[1])
    torch.distributed.destroy_process_group()
    assert not threads_of_gloo()


def threads_of_gloo() -> list[str]:
    """Threads of a process group, which end with it. The process may abort if they run into the interpreter's end."""
    names = [task.joinpath("comm").read_text() for task in Path("/proc/self/task").glob("*")]
    return [name for name in names if "gloo" in name]


if __name__ == "__main__":
    main()
