"""Configs: TOML read, merged and validated into records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paramtrans.utils.lazy import face

if TYPE_CHECKING:
    from paramtrans.config.components import (
        AugmenterConfig as AugmenterConfig,
        ComponentConfig as ComponentConfig,
        MethodConfig as MethodConfig,
        ObjectiveConfig as ObjectiveConfig,
    )
    from paramtrans.config.loading import load as load, validate as validate
    from paramtrans.config.merge import override as override, read as read
    from paramtrans.config.schema import (
        Config as Config,
        EvaluationConfig as EvaluationConfig,
        HostTraining as HostTraining,
        ReportConfig as ReportConfig,
        RunConfig as RunConfig,
        TrainingConfig as TrainingConfig,
        ZooConfig as ZooConfig,
    )
else:
    __getattr__, __dir__, __all__ = face(
        __name__,
        {
            "components": ["AugmenterConfig", "ComponentConfig", "MethodConfig", "ObjectiveConfig"],
            "loading": ["load", "validate"],
            "merge": ["override", "read"],
            "schema": [
                "Config",
                "EvaluationConfig",
                "HostTraining",
                "ReportConfig",
                "RunConfig",
                "TrainingConfig",
                "ZooConfig",
            ],
        },
    )
