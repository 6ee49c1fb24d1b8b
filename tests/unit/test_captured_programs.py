"""Captured programs (`torch.export`) as networks: translated as the network that they were captured from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from paramtrans import translate
from paramtrans.networks.forward.activations import call, tensors_in

IMAGES = torch.randn(64, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Code(nn.Module):
    """A network whose code between two convolutions, of 8 and 4 units, is a function."""

    def __init__(self, code: Callable[[Tensor], Tensor], hidden: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.code = nn.Conv2d(3, 8, 3, padding=1), code
        self.norm = nn.BatchNorm2d(8)
        self.last = nn.Conv2d(hidden, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.code(self.norm(self.first(images)).relu_()))  # type: ignore[no-any-return]


def exported(network: nn.Module, batch: Any, dynamic: bool = True) -> ExportedProgram:
    """The network as a program, for any number of examples or for those of the batch."""
    named = batch if isinstance(batch, dict) else {}
    args = () if named else (batch,)
    sizes = {0: Dim.AUTO} if dynamic else None
    shapes: Any = dict.fromkeys(named, sizes) if named else (sizes,)
    return torch.export.export(network, args, named, dynamic_shapes=shapes if dynamic else None, strict=False)


def outputs(network: nn.Module, batch: Any) -> list[Tensor]:
    with torch.no_grad():
        return tensors_in(call(network, batch))


NUMBERS: dict[str, tuple[Callable[[Tensor], Tensor], dict[str, tuple[int, int]]]] = {
    "view": (lambda x: x.view(-1, 8, 36).view(-1, 8, 6, 6), {"view.1.1": (8, 4), "view_1.1.1": (8, 4)}),
    "unflatten": (lambda x: x.unflatten(1, (4, 2)).relu().flatten(1, 2), {"unflatten.2.0": (4, 2)}),
    "split": (lambda x: torch.mul(*x.split(4, 1)), {"split.1": (4, 2)}),
    "slice": (lambda x: torch.cat((x[:, 4:], x[:, :4]), 1), {"slice_2.2": (4, 2), "slice_4.3": (4, 2)}),
    "narrow": (lambda x: torch.cat((x.narrow(1, 4, 4), x.narrow(1, 0, 4)), 1), {"narrow.2": (4, 2)}),
    "zeros": (lambda x: x + x.new_zeros(1, 8, 1, 1), {"new_zeros.1.1": (8, 4)}),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_in_operations_follow(name: str) -> None:
    code, expected = NUMBERS[name]
    program = exported(Code(code, 4 if name == "split" else 8).eval(), IMAGES[:2]).module()
    small = translate(program, calibrate=IMAGES, blocks="first")
    assert small.get_parameter("first.weight").shape == (4, 3, 3, 3)
    settings = {size.attribute: (size.before, size.after) for size in small.paramtrans_sizes}  # type: ignore[union-attr]
    assert expected.items() <= settings.items()
    assert outputs(small, IMAGES)[0].shape == (64, 4, 4, 4)


@pytest.mark.parametrize("dynamic", [True, False])
def test_a_program_becomes_what_its_network_becomes(dynamic: bool) -> None:
    network = Code(lambda x: x.flatten(2).unflatten(2, (6, 6))).eval()
    program = exported(network, IMAGES[:2] if dynamic else IMAGES, dynamic)
    before = {name: tensor.clone() for name, tensor in program.state_dict.items()}
    small, expected = translate(program.module(), calibrate=IMAGES), translate(network, calibrate=IMAGES, by="units")
    assert torch.equal(outputs(small, IMAGES)[0], outputs(expected, IMAGES)[0])
    assert small.state_dict().keys() == network.state_dict().keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in program.state_dict.items())
