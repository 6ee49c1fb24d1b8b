"""What a plugin implements, and the records that it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paramtrans.utils.lazy import face

if TYPE_CHECKING:
    from paramtrans.api.adapter import (
        BlockAdapter as BlockAdapter,
        BlockOptions as BlockOptions,
        Recognised as Recognised,
    )
    from paramtrans.api.augmenter import Augmenter as Augmenter
    from paramtrans.api.block_module import (
        BranchModule as BranchModule,
        ContinuedModule as ContinuedModule,
        ReadoutModule as ReadoutModule,
        SkipModule as SkipModule,
    )
    from paramtrans.api.context import Context as Context, Entering as Entering
    from paramtrans.api.executor import Executor as Executor
    from paramtrans.api.hosts import Hosts as Hosts
    from paramtrans.api.job import Job as Job
    from paramtrans.api.objective import Batch as Batch, Objective as Objective
    from paramtrans.api.options import BaseOptions as BaseOptions, Configurable as Configurable
    from paramtrans.api.probes import ProbeCase as ProbeCase, ProbeOptions as ProbeOptions, Probes as Probes
    from paramtrans.api.rival import Rival as Rival, RivalCase as RivalCase
    from paramtrans.api.runner import Runner as Runner, Stacked as Stacked
    from paramtrans.api.specs import (
        BlockSpec as BlockSpec,
        Component as Component,
        FeatureSpec as FeatureSpec,
        PluginSource as PluginSource,
        Reader as Reader,
        RunInfo as RunInfo,
        SymmetryGroup as SymmetryGroup,
        SymmetryMember as SymmetryMember,
        TensorKind as TensorKind,
        TensorSpec as TensorSpec,
    )
    from paramtrans.api.stacking import Params as Params
    from paramtrans.api.task import Split as Split, Task as Task
    from paramtrans.api.translator import Translator as Translator
else:
    __getattr__, __dir__, __all__ = face(
        __name__,
        {
            "adapter": ["BlockAdapter", "BlockOptions", "Recognised"],
            "augmenter": ["Augmenter"],
            "block_module": ["BranchModule", "ContinuedModule", "ReadoutModule", "SkipModule"],
            "context": ["Context", "Entering"],
            "executor": ["Executor"],
            "hosts": ["Hosts"],
            "job": ["Job"],
            "objective": ["Batch", "Objective"],
            "options": ["BaseOptions", "Configurable"],
            "probes": ["ProbeCase", "ProbeOptions", "Probes"],
            "rival": ["Rival", "RivalCase"],
            "runner": ["Runner", "Stacked"],
            "specs": [
                "BlockSpec",
                "Component",
                "FeatureSpec",
                "PluginSource",
                "Reader",
                "RunInfo",
                "SymmetryGroup",
                "SymmetryMember",
                "TensorKind",
                "TensorSpec",
            ],
            "stacking": ["Params"],
            "task": ["Split", "Task"],
            "translator": ["Translator"],
        },
    )
