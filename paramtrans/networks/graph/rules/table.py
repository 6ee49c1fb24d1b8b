"""The table of all rules, by the name of the operation."""

from __future__ import annotations

from paramtrans.networks.graph.operators import Rules
from paramtrans.networks.graph.rules import along_axes, contraction, elementwise, movement

RULES = Rules(elementwise.rule | along_axes.rule | movement.rule | contraction.rule)
