"""Calibration inputs as people have them: masks beside them, labels among them, single images, batches of one size."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import paramtrans
from paramtrans.errors import DataError, SpecMismatch
from paramtrans.networks.forward.activations import NamedInputs, length, pick_examples
from paramtrans.networks.forward.batches import as_taken


class Masked(nn.Module):
    """Attention with a mask that all examples share, and a block."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.f = nn.Linear(6, 6), nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 6))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        result: Tensor = self.f(x + F.scaled_dot_product_attention(self.q(x), x, x, attn_mask=mask))
        return result


class OfEight(nn.Module):
    """Takes eight examples at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 6))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.f(x.view(8, 6))
        return result


class Pooled(nn.Module):
    """Takes batches of images alone."""

    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.f(x).mean((2, 3))
        return result


def causal(length: int, numbers: bool) -> Tensor:
    allowed = torch.ones(length, length).tril().bool()
    return torch.zeros(length, length).masked_fill(~allowed, -torch.inf) if numbers else allowed


@pytest.mark.usefixtures("linear_blocks")
@pytest.mark.parametrize("by", ["blocks", "units"])
@pytest.mark.parametrize("numbers", [True, False])
@pytest.mark.parametrize(("count", "positions"), [(6, 6), (40, 5), (5, 40)])
def test_a_mask_that_all_examples_share_is_not_cut(by: Any, numbers: bool, count: int, positions: int) -> None:
    torch.manual_seed(0)
    network, x, mask = Masked().eval(), torch.randn(count, positions, 6), causal(positions, numbers)
    errors = []
    for inputs in ({"x": x, "mask": mask}, {"mask": mask, "x": x}):
        small = paramtrans.translate(network, ratio=0.5, calibrate=inputs, by=by)
        errors.append([block.feature_error for block in small.paramtrans_blocks])
        assert small(**inputs).shape == x.shape and small(**inputs).isfinite().all()
        [batch] = as_taken(network, [inputs])
        picked = pick_examples(batch, torch.tensor([1, 3]))
        assert length(batch) == count and torch.equal(picked["mask"], mask) and torch.equal(picked["x"], x[[1, 3]])
    assert errors[0] == errors[1]


def test_masks_of_each_example_are_cut_with_it() -> None:
    network, x = Masked().eval(), torch.randn(6, 6, 6)
    [batch] = as_taken(network, [{"x": x, "mask": causal(6, True).expand(6, 6, 6).contiguous()}])
    assert pick_examples(batch, slice(2))["mask"].shape == (2, 6, 6)


@pytest.mark.usefixtures("linear_blocks")
def test_a_batch_of_one_size_is_one_example() -> None:
    torch.manual_seed(0)
    network, batches = OfEight().eval(), [torch.randn(8, 6) for _ in range(40)]
    taken = list(as_taken(network, batches))
    assert isinstance(taken[0], NamedInputs) and [length(batch) for batch in taken] == [1] * 40
    for by in ("blocks", "units"):
        small = paramtrans.translate(network, ratio=0.5, calibrate=batches, by=by)
        assert small(batches[0]).shape == (8, 6) and small.paramtrans_blocks[0].held_out


def test_single_images_are_stacked() -> None:
    torch.manual_seed(0)
    images, network = torch.randn(40, 3, 8, 8), Pooled().eval()
    wanted = paramtrans.translate(network, ratio=0.5, calibrate=images.split(32))
    for given in (list(images), [(image, 3) for image in images]):
        small = paramtrans.translate(network, ratio=0.5, calibrate=given)
        torch.testing.assert_close(small(images), wanted(images))
    grey = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
    assert [batch.shape for batch in as_taken(grey, list(torch.randn(3, 1, 8, 8)))] == [(3, 1, 8, 8)]


def test_labels_among_named_inputs_are_left_out_and_said(caplog: pytest.LogCaptureFixture) -> None:
    network, x = Masked().eval(), torch.randn(40, 5, 6)
    batches = [{"x": some, "label": torch.arange(len(some)), "name": ["?"] * len(some)} for some in x.split(8)]
    with caplog.at_level(logging.WARNING):
        small = paramtrans.translate(network, ratio=0.5, calibrate=batches)
    assert "calibrate: label, name is left out" in caplog.text
    wanted = paramtrans.translate(network, ratio=0.5, calibrate=x.split(8))
    assert all(
        torch.equal(got, expected) for got, expected in zip(small.parameters(), wanted.parameters(), strict=True)
    )


X, Y = torch.randn(8, 6), torch.arange(8)
WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "a pair as batches": ([X, Y], DataError, r"batch 2 is of another kind.*\[\(inputs, labels\)\]"),
    "a pair": ((X, Y), DataError, "batch 2 is of another kind"),
    "a number": (torch.tensor(1.0), DataError, "single numbers"),
    "numbers": ([torch.tensor(1.0)], DataError, "single numbers"),
    "no values": (X.to("meta"), DataError, "no values"),
    "nothing": ([None], DataError, "not NoneType"),
    "nothing among tensors": ([X, None], DataError, "not NoneType"),
    "sparse": ([X.to_sparse()], DataError, "to_dense"),
    "another precision": ([X.double()], DataError, r"\(\[8, 6\] torch.float64\)"),
    "infinite": ({"input": X * torch.inf, "mask": X}, DataError, "not finite"),
}


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 6)).eval()


@pytest.mark.parametrize("method", ["refit", "prune"])
@pytest.mark.parametrize(("given", "kind", "message"), WRONG.values(), ids=WRONG)
def test_what_is_no_batch_is_told(given: Any, kind: type[Exception], message: str, method: str) -> None:
    with pytest.raises(kind, match=message):
        paramtrans.translate(mlp(), translator=method, calibrate=given)


@pytest.mark.usefixtures("linear_blocks")
def test_a_loader_that_is_random_from_the_second_batch_on_is_told() -> None:
    class Loader:
        def __iter__(self) -> Iterator[Tensor]:
            yield X
            yield torch.randn(8, 6)

    with pytest.raises(DataError, match="batch 2 is another each time"):
        paramtrans.translate(mlp(), calibrate=Loader(), by="blocks")


def test_a_network_without_values_is_told() -> None:
    with pytest.raises(SpecMismatch, match="has no values"):
        paramtrans.translate(mlp().to("meta"), calibrate=X)


@pytest.mark.parametrize("chosen", [{}, None, {"0": 3}, {"0": {"hidden1": 0}}, {"0": {"hidden1": 99}}])
@pytest.mark.usefixtures("linear_blocks")
@pytest.mark.parametrize("by", ["blocks", "units"])
def test_a_rule_that_gives_no_sizes_is_told(chosen: Any, by: Any) -> None:
    class Rule:
        def __call__(self, *_: Any) -> Any:
            return chosen

        def of_groups(self, _: Any) -> Any:
            return chosen

    with pytest.raises(SpecMismatch, match="widths: "):
        paramtrans.translate(mlp(), calibrate=X, widths=Rule(), by=by)


@pytest.mark.parametrize("nothing", [{}, [{}], [{"name": "text"}]])
def test_a_batch_without_a_tensor_is_refused_in_words_of_calibration(nothing: Any) -> None:
    with pytest.raises(DataError, match="calibrate: there is no tensor"):
        paramtrans.translate(Masked().f.eval(), calibrate=nothing)
