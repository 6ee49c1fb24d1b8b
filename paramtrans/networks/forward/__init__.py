"""Forward passes of a network: what enters its blocks, several passes at once, examples kept aside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paramtrans.utils.lazy import face

if TYPE_CHECKING:
    from paramtrans.networks.forward.activations import Inputs as Inputs
    from paramtrans.networks.forward.examples import Examples as Examples
    from paramtrans.networks.forward.lockstep import Lockstep as Lockstep
    from paramtrans.networks.forward.spool import Spool as Spool
else:
    __getattr__, __dir__, __all__ = face(
        __name__, {"activations": ["Inputs"], "examples": ["Examples"], "lockstep": ["Lockstep"], "spool": ["Spool"]}
    )
