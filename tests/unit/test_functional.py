"""Changes in place, also through views, in what translators go on from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

import paramtrans
from paramtrans.errors import SpecMismatch
from paramtrans.networks.graph.capture import capture, used_tensors
from paramtrans.networks.graph.evaluate import placeholder_values
from paramtrans.networks.graph.functional import without_changes


class Changing(nn.Module):
    """A layer, and something in place behind."""

    def __init__(self, change: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.layer, self.change = nn.Linear(6, 8), change

    def forward(self, x: Tensor) -> Any:
        return self.change(self.layer(x))


def part(x: Tensor) -> Any:
    first = x[:, 0]
    x[:, 1:] += 3
    x[:, 0] = 7
    return x, first


def pieces(x: Tensor) -> Any:
    with torch.no_grad():
        query, key = x.chunk(2, dim=-1)
        value, _ = x.split([3, 5], -1)
        rows = x.unbind(1)
        query *= 2
        key[..., 1:].relu_()
        rows[1].add_(5)
        return x, query, key, value


def turned(x: Tensor) -> Any:
    other, last = x.transpose(1, 2), x.permute(2, 0, 1)
    other[:, 2:4].mul_(3)
    last[1:3, 0] += 9
    return x, other, last


def shaped(x: Tensor) -> Any:
    flat, apart = x.flatten(1), x.unflatten(-1, (2, 4))
    few = flat[:, :5]
    flat.relu_()
    apart[..., 1] += 9
    return x, flat, few, apart


def hidden_view(x: Tensor) -> Any:
    same = nn.functional.dropout(x, training=False)
    same += 1
    return x + same


def unread(x: Tensor) -> Any:
    diagonal = x.diagonal(0, 1, 2)
    diagonal += 1
    return diagonal


@pytest.mark.parametrize("change", [part, pieces, turned, shaped, hidden_view, unread])
def test_a_program_without_changes_computes_the_same(change: Callable[[Tensor], Any]) -> None:
    network, x = Changing(change).eval(), torch.randn(2, 5, 6)
    program = capture(network, ((x,), {}))
    graph = without_changes(program)
    values = placeholder_values(program, dict(network.named_parameters()), ((x,), {}))
    placeholders = [node.name for node in graph.nodes if node.op == "placeholder"]
    with torch.no_grad():
        outputs = GraphModule(program.exported.graph_module, graph)(*(values[name] for name in placeholders))
        expected = network(x)
    for output, value in zip(outputs, expected if isinstance(expected, tuple) else [expected], strict=True):
        torch.testing.assert_close(output, value)
    assert {node.name for node in program.nodes} <= {node.name for node in graph.nodes}


def test_a_view_that_is_not_known_is_named() -> None:
    def corner(x: Tensor) -> Tensor:
        x.diagonal(0, 1, 2).add_(1)
        return x

    program = capture(Changing(corner).eval(), ((torch.randn(2, 5, 6),), {}))
    with pytest.raises(SpecMismatch, match=r"\(diagonal\) that is changed in place.*make a new tensor"):
        without_changes(program)


class Tokens(nn.Module):
    """Positions that all tokens but the first get, in place or not."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.embed, self.positions = nn.Linear(6, 8), nn.Parameter(3 * torch.randn(1, 4, 8))
        self.up, self.down, self.head = nn.Linear(8, 32), nn.Linear(32, 8), nn.Linear(8, 3)
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        if self.in_place:
            x[:, 1:] += self.positions
        else:
            x = torch.cat([x[:, :1], x[:, 1:] + self.positions], 1)
        return self.head((x + self.down(torch.relu(self.up(x)))).mean(1))


def test_matching_fits_to_features_that_were_changed_through_a_view() -> None:
    torch.manual_seed(0)
    network, other, x = Tokens(True).eval(), Tokens(False).eval(), torch.randn(64, 5, 6)
    other.load_state_dict(network.state_dict())
    assert "positions" in used_tensors(capture(network, ((x[:2],), {})))
    then = {"matching": {"steps": 5}}
    in_place, apart = (paramtrans.translate(n, "prune", calibrate=x, then=then) for n in (network, other))
    torch.testing.assert_close(in_place(x), apart(x))


def test_matching_behind_a_change_in_place_that_ends_no_piece() -> None:
    def doubled(hidden: Tensor) -> Tensor:
        return hidden.mul_(2)

    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), Changing(doubled), nn.Linear(8, 3)).eval()
    network[2].layer = nn.Linear(16, 8)
    small = paramtrans.translate(network, "prune", calibrate=torch.randn(64, 6), then={"matching": {"steps": 3}})
    assert [block.units for block in small.paramtrans_blocks] == [(16, 8), (8, 4)]  # type: ignore[union-attr]
