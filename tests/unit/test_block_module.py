"""What the module of a block offers: by a base class that holds it to its methods, or by methods of these names."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from paramtrans import BranchModule, ReadoutModule, SkipModule
from paramtrans.api.block_module import has_skip, passed_on, read_out, summed
from paramtrans.errors import SpecMismatch

X = torch.arange(3.0)


class Derived(nn.Module, SkipModule, ReadoutModule):
    def branch(self, x: Tensor) -> Tensor:
        return 10 * x

    def skip(self, x: Tensor) -> Tensor:
        return -x

    def features(self, x: Tensor) -> Tensor:
        return x + 1


class Older(nn.Module):
    """Derives from nothing; its branch is a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Hardtanh(max_val=0.5)


@pytest.mark.parametrize(
    ("base", "method"), [(BranchModule, "branch"), (SkipModule, "skip"), (ReadoutModule, "features")]
)
def test_a_module_without_what_its_base_promises_cannot_be_made(base: type, method: str) -> None:
    with pytest.raises(TypeError, match=method):
        type("Lacking", (nn.Module, base), {})()


def test_derived_modules_are_modules_that_say_what_they_add_and_pass_on() -> None:
    module = Derived()
    assert isinstance(module, nn.Module) and list(module.parameters()) == [] and has_skip(module)
    assert torch.equal(summed(module)(X), 9 * X) and torch.equal(passed_on(module, X), -X)
    assert torch.equal(read_out(module)(X), X + 1)


def test_modules_that_derive_from_nothing_are_taken_by_their_names() -> None:
    assert torch.equal(summed(Older())(X), X + X.clamp(max=0.5))
    assert torch.equal(passed_on(Older(), X), X)


@pytest.mark.parametrize(("method", "of"), [("branch", summed), ("features", read_out)])
def test_what_is_promised_and_not_there_is_told(method: str, of) -> None:
    with pytest.raises(SpecMismatch, match=f"Linear has no method `{method}`, which its adapter promises"):
        of(nn.Linear(1, 1))
