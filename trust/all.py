"""Every check, in the order in which they are run."""

from __future__ import annotations

from trust import damage, extensions, hostile, kill, numerics
from trust.checks import Check

CHECKS = (
    Check("killed_at_any_moment", kill.killed_at_any_moment, (2, 10, 100)),
    Check("any_damage", damage.any_damage, (8, 80, 1000)),
    Check("hostile_configs", hostile.hostile_configs, (4, 100, 100)),
    Check("hostile_files", hostile.hostile_files, (8, 100, 100)),
    Check("divergence_stays_alone", numerics.divergence_stays_alone, (4, 16, 200)),
    Check("stacks_of_any_size", numerics.stacks_of_any_size, (4, 24, 240)),
    Check("translators_must_be_finite", numerics.translators_must_be_finite, (4, 20, 200)),
    Check("broken_hooks", extensions.broken_hooks, (2, 13, 52)),
    Check("other_hook_versions", extensions.other_hook_versions, (2, 13, 13)),
)
