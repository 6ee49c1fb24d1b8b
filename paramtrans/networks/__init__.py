"""Whole networks: blocks found in them, translated and put back. `translate` itself is `paramtrans.translate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paramtrans.utils.lazy import face

if TYPE_CHECKING:
    from paramtrans.networks.allocation import Allotment as Allotment
    from paramtrans.networks.blocks.finding import NetworkBlock as NetworkBlock, find_blocks as find_blocks
    from paramtrans.networks.files import load_translated as load_translated, save_translated as save_translated
    from paramtrans.networks.loading.architectures import build as build
    from paramtrans.networks.loading.calibration import Drawing as Drawing, read_inputs as read_inputs
    from paramtrans.networks.loading.host_network import HostNetwork as HostNetwork
    from paramtrans.networks.loading.synthetic_inputs import draw_probes as draw_probes
    from paramtrans.networks.losses import Losses as Losses
    from paramtrans.networks.results.measuring import measure_losses as measure_losses
    from paramtrans.networks.units.narrowed import NarrowedGroup as NarrowedGroup
    from paramtrans.networks.units.widths import GroupSizes as GroupSizes
    from paramtrans.networks.widths import (
        Budget as Budget,
        FlopBudget as FlopBudget,
        LatencyBudget as LatencyBudget,
        Ratio as Ratio,
        WidthRule as WidthRule,
    )
else:
    __getattr__, __dir__, __all__ = face(
        __name__,
        {
            "allocation": ["Allotment"],
            "loading.architectures": ["build"],
            "blocks.finding": ["NetworkBlock", "find_blocks"],
            "loading.calibration": ["Drawing", "read_inputs"],
            "files": ["load_translated", "save_translated"],
            "units.widths": ["GroupSizes"],
            "loading.host_network": ["HostNetwork"],
            "losses": ["Losses"],
            "results.measuring": ["measure_losses"],
            "units.narrowed": ["NarrowedGroup"],
            "loading.synthetic_inputs": ["draw_probes"],
            "widths": ["Budget", "FlopBudget", "LatencyBudget", "Ratio", "WidthRule"],
        },
    )
