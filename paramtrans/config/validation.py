"""Whether the parts of a config fit each other: what a translator needs, and names that must differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paramtrans.config.components import MethodConfig
    from paramtrans.config.schema import Config

METHODS = ("source", "trained_target", "translated")
"""Methods that have these names wherever they are reported; no other may take them."""


def problems(config: Config, classes: Mapping[str, Any]) -> Iterator[str]:
    """What does not fit, a line each that begins with the dotted path. `classes` are the components', by path."""
    yield from _own_translator(config, classes.get("translator"))
    for i, method in enumerate(config.evaluation.methods):
        yield from _method(config, f"evaluation.methods.{i}", method, classes)
    yield from _names(config)
    if config.report is not None and config.zoo.report_from is not None:
        yield "report: the report hosts are given by zoo.report_from; leave one of them out"
    if config.zoo.snapshots and config.zoo.origin is not None:
        yield "zoo.snapshots: hosts from elsewhere (zoo.origin) have none; leave one of them out"
    if len(set(config.zoo.snapshots)) < len(config.zoo.snapshots):
        yield "zoo.snapshots: a share is named twice"


def _own_translator(config: Config, translator: Any) -> Iterator[str]:
    if config.translator is None:
        if not config.evaluation.methods:
            yield "translator: required, but not given; name one, or list some as [[evaluation.methods]]"
        return
    name = config.translator.name
    if getattr(translator, "needs_probes", False):
        yield f"translator: {name} needs probes; move it to [[evaluation.methods]] and give it some there"
    if getattr(translator, "learns", False):
        given = {
            "zoo.train": config.zoo.train,
            "zoo.select": config.zoo.select,
            "objectives": config.objectives,
            "training": config.training,
        }
        yield from (f"{path}: required, but not given; {name} learns" for path, value in given.items() if not value)


def _method(config: Config, path: str, method: MethodConfig, classes: Mapping[str, Any]) -> Iterator[str]:
    chain = {f"{path}.translator": method.translator} if method.translator else {}
    chain |= {f"{path}.then.{j}": part for j, part in enumerate(method.then)}
    if not chain:
        yield f"{path}: names no translator; give it one, or some to go on with as `then`"
    if method.translator is None and config.translator is None:
        yield f"{path}: has no translator to go on from; give it one, or give the run its own"
    for place, part in chain.items():
        if getattr(classes.get(place), "learns", False):
            yield f"{place}: {part.name} learns, which only the run's own translator can; or train it in a run before"
        if getattr(classes.get(place), "needs_probes", False) and method.probes is None:
            yield f"{path}.probes: required, but not given; {part.name} compares what blocks compute"


def _names(config: Config) -> Iterator[str]:
    rivals = [part.name for part in config.evaluation.rivals]
    labels = [method.label for method in config.evaluation.methods]
    for path, labelled in (("rivals", rivals), ("methods", labels)):
        for name in sorted({name for name in labelled if (rivals + labels).count(name) > 1 or name in METHODS}):
            yield f"evaluation.{path}: {name} is named twice, or is the name of another method"
    metrics = [part.name for part in config.evaluation.metrics]
    for name in sorted({name for name in metrics if metrics.count(name) > 1}):
        yield f"evaluation.metrics: {name} is named twice"
    baseline, methods = config.evaluation.baseline, [*METHODS, *rivals, *labels]
    if baseline is not None and baseline not in methods:
        yield f"evaluation.baseline: {baseline} is no method; known: {', '.join(methods)}"
