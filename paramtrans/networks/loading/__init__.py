"""What comes in: networks by name, parameters from files, inputs to translate with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paramtrans.utils.lazy import face

if TYPE_CHECKING:
    from paramtrans.networks.loading.architectures import build as build
    from paramtrans.networks.loading.calibration import Drawing as Drawing, read_inputs as read_inputs
    from paramtrans.networks.loading.host_network import HostNetwork as HostNetwork
    from paramtrans.networks.loading.synthetic_inputs import draw_probes as draw_probes
else:
    __getattr__, __dir__, __all__ = face(
        __name__,
        {
            "architectures": ["build"],
            "calibration": ["Drawing", "read_inputs"],
            "host_network": ["HostNetwork"],
            "synthetic_inputs": ["draw_probes"],
        },
    )
