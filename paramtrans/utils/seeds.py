"""Seeds for every independent use of randomness, derived from one by name, so that no stage's draws shift another's.

The names stand where a seed is used; those of hosts in `zoo/host_seeds.py`.
"""

from __future__ import annotations

import hashlib


def derive(seed: int, *names: object) -> int:
    """A 63-bit seed for the use called `names`, the same on every machine and in every process.

    >>> derive(0, "host", "train", 3) == derive(0, "host", "train", 3)
    True
    >>> derive(0, "host", "train", 3) == derive(0, "host", "train", 4)
    False
    """
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
