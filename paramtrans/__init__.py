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
    from paramtrans.api.block_module import BranchModule, ContinuedModule, ReadoutModule, SkipModule
    from paramtrans.api.context import Context, Entering
    from paramtrans.api.executor import Executor
    from paramtrans.api.hosts import Hosts
    from paramtrans.api.job import Job
    from paramtrans.api.metric import Metric
    from paramtrans.api.modules import initial
    from paramtrans.api.objective import Batch, Objective
    from paramtrans.api.options import BaseOptions
    from paramtrans.api.probes import ProbeCase, ProbeOptions, Probes
    from paramtrans.api.report_section import ReportSection
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
    from paramtrans.api.units import UnitCase, UnitPiece
    from paramtrans.backends.layers import SpatialAttention
    from paramtrans.config.schema import Config
    from paramtrans.errors import ConfigError, DataError, ParamtransError, SpecMismatch, StopRun, TrainingError
    from paramtrans.networks.allocation import Allotment
    from paramtrans.networks.blocks.finding import NetworkBlock
    from paramtrans.networks.files import load_translated, save_translated
    from paramtrans.networks.graph.groups import NamedGroup
    from paramtrans.networks.graph.whole_program import as_program
    from paramtrans.networks.loading.architectures import build
    from paramtrans.networks.loading.calibration import read_inputs
    from paramtrans.networks.loading.host_network import HostNetwork
    from paramtrans.networks.loading.synthetic_inputs import draw_probes
    from paramtrans.networks.results.exporting import save_exported, save_onnx
    from paramtrans.networks.results.gguf import save_gguf
    from paramtrans.networks.results.measuring import measure_losses
    from paramtrans.networks.translate import translate
    from paramtrans.networks.units.widths import GroupSizes
    from paramtrans.networks.widths import Budget, FlopBudget, LatencyBudget, Ratio, WidthRule
    from paramtrans.ops.symmetry import random_orbit
    from paramtrans.plugins.hookspecs import hookimpl
    from paramtrans.plugins.manager import Plugins, components
    from paramtrans.runs.run import RunResult, run
    from paramtrans.translators.base import LearnedTranslator, TokenOptions, TokenTranslator
    from paramtrans.translators.pretrained import PretrainedTranslator
    from paramtrans.translators.saving import load_translator, save_translator
    from paramtrans.zoo.jobs import do_job

_MODULES = {
    "api.adapter": ["BlockAdapter", "BlockOptions", "Part", "Recognised"],
    "api.architecture": ["ArchitectureSource"],
    "api.augmenter": ["Augmenter"],
    "api.block_module": ["BranchModule", "ContinuedModule", "ReadoutModule", "SkipModule"],
    "api.context": ["Context", "Entering"],
    "api.executor": ["Executor"],
    "api.hosts": ["Hosts"],
    "api.job": ["Job"],
    "api.metric": ["Metric"],
    "api.modules": ["initial"],
    "api.objective": ["Batch", "Objective"],
    "api.options": ["BaseOptions"],
    "api.probes": ["ProbeCase", "ProbeOptions", "Probes"],
    "api.report_section": ["ReportSection"],
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
    "api.units": ["UnitCase", "UnitPiece"],
    "backends.layers": ["SpatialAttention"],
    "config.schema": ["Config"],
    "errors": ["ConfigError", "DataError", "ParamtransError", "SpecMismatch", "StopRun", "TrainingError"],
    "networks.allocation": ["Allotment"],
    "networks.blocks.finding": ["NetworkBlock"],
    "networks.files": ["load_translated", "save_translated"],
    "networks.graph.groups": ["NamedGroup"],
    "networks.graph.whole_program": ["as_program"],
    "networks.loading.architectures": ["build"],
    "networks.loading.calibration": ["read_inputs"],
    "networks.loading.host_network": ["HostNetwork"],
    "networks.loading.synthetic_inputs": ["draw_probes"],
    "networks.results.exporting": ["save_exported", "save_onnx"],
    "networks.results.gguf": ["save_gguf"],
    "networks.results.measuring": ["measure_losses"],
    "networks.translate": ["translate"],
    "networks.units.widths": ["GroupSizes"],
    "networks.widths": ["Budget", "FlopBudget", "LatencyBudget", "Ratio", "WidthRule"],
    "ops.symmetry": ["random_orbit"],
    "plugins.hookspecs": ["hookimpl"],
    "plugins.manager": ["Plugins", "components"],
    "runs.run": ["RunResult", "run"],
    "translators.base": ["LearnedTranslator", "TokenOptions", "TokenTranslator"],
    "translators.pretrained": ["PretrainedTranslator"],
    "translators.saving": ["load_translator", "save_translator"],
    "zoo.jobs": ["do_job"],
}

_HOMES = {name: module for module, names in _MODULES.items() for name in names}
"""The module, below `paramtrans`, that each public name lives in."""

__all__ = [
    "Allotment",
    "ArchitectureSource",
    "Augmenter",
    "BaseOptions",
    "Batch",
    "BlockAdapter",
    "BlockOptions",
    "BlockSpec",
    "BranchModule",
    "Budget",
    "Component",
    "Config",
    "ConfigError",
    "Context",
    "ContinuedModule",
    "DataError",
    "Entering",
    "Executor",
    "FeatureSpec",
    "FlopBudget",
    "GroupSizes",
    "HostNetwork",
    "Hosts",
    "Job",
    "LatencyBudget",
    "LearnedTranslator",
    "Metric",
    "NamedGroup",
    "NetworkBlock",
    "Objective",
    "Params",
    "ParamtransError",
    "Part",
    "Plugins",
    "PretrainedTranslator",
    "ProbeCase",
    "ProbeOptions",
    "Probes",
    "Ratio",
    "Reader",
    "ReadoutModule",
    "Recognised",
    "ReportSection",
    "Rival",
    "RivalCase",
    "RunInfo",
    "RunResult",
    "SkipModule",
    "SpatialAttention",
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
    "TrainingError",
    "Translator",
    "UnitCase",
    "UnitPiece",
    "WidthRule",
    "__version__",
    "as_program",
    "build",
    "components",
    "do_job",
    "draw_probes",
    "hookimpl",
    "initial",
    "load_translated",
    "load_translator",
    "measure_losses",
    "random_orbit",
    "read_inputs",
    "run",
    "save_exported",
    "save_gguf",
    "save_onnx",
    "save_translated",
    "save_translator",
    "translate",
]

__getattr__, __dir__, _ = face(__name__, _MODULES)
