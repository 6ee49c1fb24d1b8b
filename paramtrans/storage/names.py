"""Names from files that become part of a path: one component of known letters, nothing that leads elsewhere."""

from __future__ import annotations

import re

from paramtrans.errors import Damaged

MAX = 100
"""Letters of a name, at most."""
PATTERN = rf"[^\W_][\w .,+=@()-]{{0,{MAX - 1}}}"
"""Letters and digits of any script, and a few signs, of which none stands first."""
KNOWN = re.compile(PATTERN)
RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
"""Names that are devices on some systems."""


def is_component(name: object) -> bool:
    """Whether a name can be part of a path without leading anywhere else."""
    plain = isinstance(name, str) and KNOWN.fullmatch(name) and name.isprintable() and name[-1] not in " ."
    return bool(plain) and not RESERVED.fullmatch(str(name))


def checked(name: str, where: str) -> str:
    """The name; raises `Damaged` where it is no single component of known letters."""
    if not is_component(name):
        raise Damaged(f"{where}: {name[:MAX]!r} is no name of a file or folder: letters, digits and .,+=@()- alone")
    return name


def nearest(name: str) -> str:
    """A name that `checked` takes, as near to this one as can be."""
    kept = "".join(letter if KNOWN.fullmatch(f"x{letter}") and letter.isprintable() else "_" for letter in name[:MAX])
    near = kept.lstrip("_ .,+=@()-").rstrip(" .")
    return near if is_component(near) else "run"
