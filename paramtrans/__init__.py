"""paramtrans: compress a trained model by translating the parameters of its blocks, without training it again.

Public names are bound lazily, so that `import paramtrans` imports neither torch nor pydantic.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paramtrans.blocks import BlockAdapter, BlockOptions
    from paramtrans.config import Config
    from paramtrans.context import Context, Entering
    from paramtrans.engine import RunResult, run
    from paramtrans.errors import ParamtransError
    from paramtrans.hookspecs import hookimpl
    from paramtrans.hostnetwork import HostNetwork
    from paramtrans.hosts import Hosts, Params
    from paramtrans.learned import LearnedTranslator, TokenTranslator
    from paramtrans.madeup import draw_probes
    from paramtrans.options import BaseOptions
    from paramtrans.plugins import components
    from paramtrans.pretrained import PretrainedTranslator
    from paramtrans.protocols import (
        Augmenter,
        Batch,
        Executor,
        Objective,
        ProbeCase,
        Probes,
        Rival,
        RivalCase,
        RunInfo,
        Split,
        Task,
        Translator,
    )
    from paramtrans.saving import load_translator, save_translator
    from paramtrans.specs import (
        BlockSpec,
        Component,
        FeatureSpec,
        SymmetryGroup,
        SymmetryMember,
        TensorKind,
        TensorSpec,
    )
    from paramtrans.translated import load_translated, save_translated
    from paramtrans.translation import translate

__version__ = "0.1.0"

_HOMES = {
    "BlockAdapter": "blocks",
    "BlockOptions": "blocks",
    "Config": "config",
    "RunResult": "engine",
    "run": "engine",
    "ParamtransError": "errors",
    "hookimpl": "hookspecs",
    "HostNetwork": "hostnetwork",
    "Hosts": "hosts",
    "Params": "hosts",
    "LearnedTranslator": "learned",
    "TokenTranslator": "learned",
    "draw_probes": "madeup",
    "BaseOptions": "options",
    "components": "plugins",
    "PretrainedTranslator": "pretrained",
    "Augmenter": "protocols",
    "Batch": "protocols",
    "Context": "context",
    "Entering": "context",
    "Executor": "protocols",
    "Objective": "protocols",
    "ProbeCase": "protocols",
    "Probes": "protocols",
    "Rival": "protocols",
    "RivalCase": "protocols",
    "RunInfo": "protocols",
    "Split": "protocols",
    "Task": "protocols",
    "Translator": "protocols",
    "load_translator": "saving",
    "save_translator": "saving",
    "load_translated": "translated",
    "save_translated": "translated",
    "translate": "translation",
    "BlockSpec": "specs",
    "Component": "specs",
    "FeatureSpec": "specs",
    "SymmetryGroup": "specs",
    "SymmetryMember": "specs",
    "TensorKind": "specs",
    "TensorSpec": "specs",
}

__all__ = [
    "Augmenter",
    "BaseOptions",
    "Batch",
    "BlockAdapter",
    "BlockOptions",
    "BlockSpec",
    "Component",
    "Config",
    "Context",
    "Entering",
    "Executor",
    "FeatureSpec",
    "HostNetwork",
    "Hosts",
    "LearnedTranslator",
    "Objective",
    "Params",
    "ParamtransError",
    "PretrainedTranslator",
    "ProbeCase",
    "Probes",
    "Rival",
    "RivalCase",
    "RunInfo",
    "RunResult",
    "Split",
    "SymmetryGroup",
    "SymmetryMember",
    "Task",
    "TensorKind",
    "TensorSpec",
    "TokenTranslator",
    "Translator",
    "__version__",
    "components",
    "draw_probes",
    "hookimpl",
    "load_translated",
    "load_translator",
    "run",
    "save_translated",
    "save_translator",
    "translate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
