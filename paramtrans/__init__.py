"""paramtrans: compress a trained model by translating the parameters of its blocks, without training it again.

Public names are bound lazily, so that `import paramtrans` imports neither torch nor pydantic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paramtrans._version import __version__
from paramtrans.utils.lazy import face

if TYPE_CHECKING:
    from paramtrans.api.adapter import BlockAdapter, BlockOptions, Part, Recognised
    from paramtrans.api.architecture import ArchitectureSource
    from paramtrans.api.augmenter import Augmenter
    from paramtrans.api.block_module import BranchModule, ReadoutModule, SkipModule
    from paramtrans.api.context import Context, Entering
    from paramtrans.api.executor import Executor
    from paramtrans.api.hosts import Hosts
    from paramtrans.api.job import Job
    from paramtrans.api.modules import initial
    from paramtrans.api.objective import Batch, Objective
    from paramtrans.api.options import BaseOptions
    from paramtrans.api.probes import ProbeCase, Probes
    from paramtrans.api.rival import Rival, RivalCase
    from paramtrans.api.specs import (
        BlockSpec,
        Component,
        FeatureSpec,
        Reader,
        RunInfo,
        SymmetryGroup,
        SymmetryMember,
        TensorKind,
        TensorSpec,
    )
    from paramtrans.api.stacking import Params
    from paramtrans.api.task import Split, Task
    from paramtrans.api.translator import Translator
    from paramtrans.config.schema import Config
    from paramtrans.errors import ParamtransError, SpecMismatch, StopRun
    from paramtrans.networks.files import load_translated, save_translated
    from paramtrans.networks.loading.host_network import HostNetwork
    from paramtrans.networks.loading.synthetic_inputs import draw_probes
    from paramtrans.networks.results.exporting import save_exported, save_onnx
    from paramtrans.networks.translate import translate
    from paramtrans.plugins.hookspecs import hookimpl
    from paramtrans.plugins.manager import components
    from paramtrans.runs.run import RunResult, run
    from paramtrans.translators.base import LearnedTranslator, TokenOptions, TokenTranslator
    from paramtrans.translators.pretrained import PretrainedTranslator
    from paramtrans.translators.saving import load_translator, save_translator

_MODULES = {
    "networks.widths": ["WidthRule"],
    "api.report_section": ["ReportSection"],
    "api.metric": ["Metric"],
    "api.architecture": ["ArchitectureSource"],
    "api.adapter": ["BlockAdapter", "BlockOptions", "Part", "Recognised"],
    "api.augmenter": ["Augmenter"],
    "api.block_module": ["BranchModule", "ReadoutModule", "SkipModule"],
    "api.context": ["Context", "Entering"],
    "api.executor": ["Executor"],
    "api.hosts": ["Hosts"],
    "api.job": ["Job"],
    "api.modules": ["initial"],
    "api.objective": ["Batch", "Objective"],
    "api.options": ["BaseOptions"],
    "api.probes": ["ProbeCase", "Probes"],
    "api.rival": ["Rival", "RivalCase"],
    "api.specs": [
        "BlockSpec",
        "Component",
        "FeatureSpec",
        "Reader",
        "RunInfo",
        "SymmetryGroup",
        "SymmetryMember",
        "TensorKind",
        "TensorSpec",
    ],
    "api.stacking": ["Params"],
    "api.task": ["Split", "Task"],
    "api.translator": ["Translator"],
    "config.schema": ["Config"],
    "errors": ["ParamtransError", "SpecMismatch", "StopRun"],
    "networks.results.exporting": ["save_exported", "save_onnx"],
    "networks.files": ["load_translated", "save_translated"],
    "networks.loading.host_network": ["HostNetwork"],
    "networks.loading.synthetic_inputs": ["draw_probes"],
    "networks.translate": ["translate"],
    "plugins.hookspecs": ["hookimpl"],
    "plugins.manager": ["components"],
    "runs.run": ["RunResult", "run"],
    "translators.base": ["LearnedTranslator", "TokenOptions", "TokenTranslator"],
    "translators.pretrained": ["PretrainedTranslator"],
    "translators.saving": ["load_translator", "save_translator"],
}

_HOMES = {name: module for module, names in _MODULES.items() for name in names}
"""The module, below `paramtrans`, that each public name lives in."""

__all__ = [
    "ArchitectureSource",
    "Augmenter",
    "BaseOptions",
    "Batch",
    "BlockAdapter",
    "BlockOptions",
    "BlockSpec",
    "BranchModule",
    "Component",
    "Config",
    "Context",
    "Entering",
    "Executor",
    "FeatureSpec",
    "HostNetwork",
    "Hosts",
    "Job",
    "LearnedTranslator",
    "Metric",
    "Objective",
    "Params",
    "ParamtransError",
    "Part",
    "PretrainedTranslator",
    "ProbeCase",
    "Probes",
    "Reader",
    "ReadoutModule",
    "Recognised",
    "ReportSection",
    "Rival",
    "RivalCase",
    "RunInfo",
    "RunResult",
    "SkipModule",
    "SpecMismatch",
    "Split",
    "StopRun",
    "SymmetryGroup",
    "SymmetryMember",
    "Task",
    "TensorKind",
    "TensorSpec",
    "TokenOptions",
    "TokenTranslator",
    "Translator",
    "WidthRule",
    "__version__",
    "components",
    "draw_probes",
    "hookimpl",
    "initial",
    "load_translated",
    "load_translator",
    "run",
    "save_exported",
    "save_onnx",
    "save_translated",
    "save_translator",
    "translate",
]

__getattr__, __dir__, _ = face(__name__, _MODULES)
