"""The paper's Table 2: parameters of the four Mixers on the paper's blocks, to the integer."""

import pytest

from paramtrans import components

# The paper prints these over 2**20 and truncated: 1.32, 2.61, 3.90 and 4.11 "M".
TABLE2 = {"small": 1_385_965, "base": 2_741_293, "large": 4_096_621, "wide": 4_316_605}


@pytest.mark.parametrize(("size", "parameters"), TABLE2.items())
def test_parameters(size: str, parameters: int) -> None:
    registry = components()
    source = registry.create("block_adapter", "basic_block", channels=6, read="weights")
    target = registry.create("block_adapter", "conv", channels=6, hidden=3)
    for start in ("none", "template"):
        translator = registry.create("translator", "mixer", source, target, size=size, start=start)
        assert sum(p.numel() for p in translator.parameters()) == parameters


def test_paper_rounding() -> None:
    assert [int(100 * p / 2**20) / 100 for p in TABLE2.values()] == [1.32, 2.61, 3.90, 4.11]
