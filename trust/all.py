"""Every check, in the order in which they are run."""

from __future__ import annotations

from trust import (
    damage,
    extensions,
    fuzz,
    guards,
    hostile,
    hostilefiles,
    hostileimports,
    hostileprograms,
    kill,
    networks,
    numerics,
    places,
    supply,
    workers,
)
from trust.checks import Check

CHECKS = (
    Check("killed_at_any_moment", kill.killed_at_any_moment, (1, 10, 100)),
    Check("any_damage", damage.any_damage, (8, 100, 1000)),
    Check("hostile_configs", hostile.hostile_configs, (3, 100, 100)),
    Check("hostile_files", hostilefiles.hostile_files, (6, 100, 100)),
    Check("hostile_imports", hostileimports.hostile_imports, (6, 200, 200)),
    Check("hostile_programs", hostileprograms.hostile_programs, (6, 100, 100)),
    Check("names_from_files", guards.names_from_files, (2, 10, 10)),
    Check("outputs_replace_nothing", guards.outputs_replace_nothing, (3, 3, 3)),
    Check("numbers_are_finite", guards.numbers_are_finite, (1, 3, 3)),
    Check("changed_results", guards.changed_results, (1, 4, 40)),
    Check("states_of_torch", guards.states_of_torch, (5, 5, 5)),
    Check("content_in_words", guards.content_in_words, (10, 10, 10)),
    Check("layers_keep_what_is_no_size", networks.layers_keep_what_is_no_size, (15, 15, 15)),
    Check("fuzzed_configs", fuzz.fuzzed_configs, (50, 500, 10_000)),
    Check("fuzzed_parameters", fuzz.fuzzed_parameters, (100, 1000, 10_000)),
    Check("full_disks", places.full_disks, (1, 6, 50)),
    Check("places_that_may_not_be_written", places.places_that_may_not_be_written, (1, 5, 25)),
    Check("too_little_memory", places.too_little_memory, (1, 3, 20)),
    Check("two_processes", places.two_processes, (1, 4, 20)),
    Check("lost_workers", workers.lost_workers, (1, 3, 20)),
    Check("divergence_stays_alone", numerics.divergence_stays_alone, (4, 16, 200)),
    Check("stacks_of_any_size", numerics.stacks_of_any_size, (4, 24, 240)),
    Check("translators_must_be_finite", numerics.translators_must_be_finite, (4, 40, 200)),
    Check("broken_hooks", extensions.broken_hooks, (1, 13, 80)),
    Check("other_hook_versions", extensions.other_hook_versions, (1, 20, 20)),
    Check("locked_dependencies", supply.locked_dependencies, (1, 1, 1)),
    Check("known_vulnerabilities", supply.known_vulnerabilities, (0, 1, 1)),
    Check("the_wheel_by_itself", supply.the_wheel_by_itself, (0, 1, 1)),
)
