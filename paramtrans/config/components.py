"""The parts of a config that name components, with their options beside the name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import ConfigDict, Field, PositiveFloat, ValidationError, model_validator

from paramtrans.api.options import BaseOptions

SINGLE = {
    "task": "task",
    "source": "block_adapter",
    "target": "block_adapter",
    "translator": "translator",
    "executor": "executor",
}
"""The tables of a config that name one component, with its kind."""
MAX_PARTS = 100
"""Components of one kind in a list, at most."""


class ComponentConfig(BaseOptions):
    """A component's name, and its options beside it; a bare string is a name without options."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str
    """Which component; `paramtrans plugins` lists them, and `paramtrans plugins NAME` the options beside it."""

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class AugmenterConfig(ComponentConfig):
    """An augmenter, and what it changes."""

    on: Literal["source", "target", "both"] = "source"
    """The translator's input, the trained target it is compared with, or each of them."""


class ObjectiveConfig(ComponentConfig):
    """An objective, and its share of the total loss."""

    weight: PositiveFloat = 1.0
    """What its loss is multiplied with before all are added up."""


class MethodConfig(BaseOptions):
    """One more way to fill the slot, reported beside the run's own translator."""

    label: str = Field(min_length=1, max_length=40)
    """What tables call it."""
    translator: ComponentConfig | None = None
    """One that need not be trained; left out: the run's own translator, for `then` to go on from."""
    then: tuple[ComponentConfig, ...] = ()
    """Translators that go on from what the one before wrote."""
    probes: ComponentConfig | None = None
    """Inputs for those that compare what blocks compute."""


def well_formed(document: Mapping[str, Any]) -> Iterator[tuple[str, str, ComponentConfig]]:
    """The components of a document that is not a config as a whole, as far as they are components."""
    zoo, report, training, evaluation = (
        table if isinstance(table := document.get(key), dict) else {}
        for key in ("zoo", "report", "training", "evaluation")
    )
    several = (
        ("zoo.also", "task", ComponentConfig, zoo.get("also")),
        ("training.targets", "block_adapter", ComponentConfig, training.get("targets")),
        ("objectives", "objective", ObjectiveConfig, document.get("objectives")),
        ("augmenters", "augmenter", AugmenterConfig, document.get("augmenters")),
        ("evaluation.rivals", "rival", ComponentConfig, evaluation.get("rivals")),
        ("evaluation.metrics", "metric", ComponentConfig, evaluation.get("metrics")),
        ("evaluation.sections", "report_section", ComponentConfig, evaluation.get("sections")),
    )
    candidates = [(path, kind, ComponentConfig, document.get(path)) for path, kind in SINGLE.items()]
    candidates.append(("report.task", "task", ComponentConfig, report.get("task")))
    for path, kind, model, values in several:
        if isinstance(values, list):
            candidates += [(f"{path}.{i}", kind, model, value) for i, value in enumerate(values[:MAX_PARTS])]
    methods = evaluation.get("methods")
    for i, method in enumerate(methods[:MAX_PARTS] if isinstance(methods, list) else []):
        if isinstance(method, dict):
            candidates += _of_method(f"evaluation.methods.{i}", method)
    for path, kind, model, value in candidates:
        if value is not None:
            try:
                yield path, kind, model.model_validate(value)
            except (ValidationError, RecursionError):
                continue  # told already, with the rest of the frame


def _of_method(path: str, method: Mapping[str, Any]) -> Iterator[tuple[str, str, type[ComponentConfig], Any]]:
    for place, kind in (("translator", "translator"), ("probes", "probe")):
        yield f"{path}.{place}", kind, ComponentConfig, method.get(place)
    then = method.get("then")
    for j, value in enumerate(then if isinstance(then, list) else []):
        yield f"{path}.then.{j}", "translator", ComponentConfig, value
