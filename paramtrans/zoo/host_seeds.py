"""The seed of each host of a zoo."""

from __future__ import annotations

from paramtrans.utils import seeds
from paramtrans.zoo.roles import trained_as


def host_seed(zoo_seed: int, role: str, number: int) -> int:
    """The seed of one host: its initial parameters, the order of its images, and their augmentation.

    A snapshot has its host's.
    """
    return seeds.derive(zoo_seed, "host", trained_as(role)[0], number)
