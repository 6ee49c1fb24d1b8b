"""What a run found on one page, complete in itself, to send to a colleague."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from paramtrans.api.records import BlockCosts, BreakEven, Evaluation, RunRecord
from paramtrans.config.toml_writer import toml
from paramtrans.report import figures, findings
from paramtrans.report.figures import finite, label
from paramtrans.report.findings import number
from paramtrans.report.sections import written
from paramtrans.report.text import about, meanings
from paramtrans.storage import files
from paramtrans.utils.counts import counted
from paramtrans.utils.progress import duration
from paramtrans.utils.templates import environment

if TYPE_CHECKING:
    from torch import Tensor

    from paramtrans.api.report_section import ReportSection

Facts = list[tuple[str, str]]

PAGE = "report.html"
STAGES = {"zoo_step1": "step 1: the hosts", "zoo_step2": "step 2: target blocks", "training": "step 3: the translator"}
GAP = ("random_init", "translated", "trained_target")


def write(
    folder: Path,
    result: Evaluation,
    run: RunRecord,
    history: Sequence[Mapping[str, Any]],
    maps: Mapping[str, Tensor],
    sections: Iterable[ReportSection] = (),
) -> Path:
    """Write the page of a run to its folder, with further sections of plugins; returns the page's path."""
    page = (
        environment()
        .get_template(f"{PAGE}.jinja")
        .render(
            run=run,
            started=_moment(run.started),
            headline=findings.headline(result),
            about=about(run, result),
            meanings=meanings(result.methods),
            tiles=_tiles(result),
            metric=result.metric,
            caption=findings.caption(result.metric, _examples(result, run.config)),
            methods=findings.rows(result),
            hosts=_hosts(result),
            figures=_figures(result, history, maps),
            costs=_costs(result.blocks),
            break_even=break_even(result.break_even),
            training=_training(result, history),
            stages=_stages(run.seconds),
            sections=written(sections, run.document(), result.document()),
            config=toml(run.config),
        )
    )
    path = folder / PAGE
    files.write_bytes(path, page.encode("utf-8", errors="replace"))
    return path


def _examples(result: Evaluation, document: Mapping[str, Any]) -> str:
    """What hosts were measured on, in words; older results do not count it."""
    kind = "examples held out of training" if document.get("evaluation", {}).get("holdout") else "test examples"
    return f"the {kind}" if result.examples is None else f"{result.examples:,} {kind}"


def break_even(costs: BreakEven | None) -> str:
    """When translating has cost less time than training each target block."""
    if costs is None:
        return "The run has no translator of its own, so nothing has to be paid off."
    if costs.step2_seconds is None:
        return "Step 2 was not run on the report hosts, so there is nothing to compare the cost with."
    zoo, training = _seconds(costs.zoo_seconds), _seconds(costs.training_seconds)
    translation, step2 = _seconds(costs.translation_seconds), _seconds(costs.step2_seconds)
    costs_each = f"a translation takes {translation}, step 2 takes {step2}"
    if costs.models is None:
        return f"Translating never pays by time alone: for each model {costs_each}."
    when = "the first model" if costs.models <= 1 else f"{costs.models:,} models"
    once = f"The zoo ({zoo}) and the training ({training}) are paid for once"
    return f"By time alone, translating pays from {when} on. {once}; after that, for each model {costs_each}."


def _tiles(result: Evaluation) -> Facts:
    """The few numbers that stand large at the top: (number, what it is)."""
    source, target, by = result.blocks.source, result.blocks.target, result.metric
    translated = result.methods.get("translated")
    tiles = [(by.shown(translated.mean), f"{by.name}, translated")] if translated else []
    if (share := findings.gap(result)) is not None:
        tiles.append((f"{100 * share:.1f}%", "of the gap closed"))
    tiles.append((_ratio(source.parameters, target.parameters), "parameters, source ÷ target"))
    tiles.append((_ratio(source.flops, target.flops), "FLOPs, source ÷ target"))
    return tiles


def host_counts(zoo: Mapping[str, int]) -> str:
    """How many hosts there were for what."""
    counts = ", ".join(f"{zoo[role]:,} to {role}" for role in ("train", "select", "report"))
    return counts + (f"; {zoo['snapshots']:,} snapshots to train" if "snapshots" in zoo else "")


def _hosts(result: Evaluation) -> str:
    counts = host_counts(result.zoo)
    return f"Hosts of the zoo: {counts}. Seeds and values of each report host are in evaluation.json."


def _figures(result: Evaluation, history: Sequence[Mapping[str, Any]], maps: Mapping[str, Tensor]) -> dict[str, Markup]:
    """By name, the figures that there is something to show in."""
    hosts = result.hosts.accuracies
    drawn: dict[str, tuple[Any, str]] = {}
    if rows := [f"{row['label']} {row['mean']}" for row in findings.rows(result)]:
        drawn["accuracies"] = (figures.means(result), f"Mean {result.metric.heading}: {', '.join(rows)}.")
    if finite(hosts.get("translated", [])):
        spans = [f"{label(name)} between {_span(hosts[name])}" for name in GAP if finite(hosts.get(name, []))]
        said = f"Histogram of single hosts, {result.metric.heading}: {', '.join(spans)}."
        drawn["histogram"] = (figures.histogram(hosts, result.metric), said)
    if maps:
        names = ", ".join(figures.MAPS.get(name, label(name)) for name in maps)
        drawn["maps"] = (figures.feature_maps(maps), f"Grid of feature maps: {names}.")
    if history:
        best = result.training.best_epoch if result.training else None
        drawn["training"] = (figures.training(history, result.metric, best), _loss_sentence(history))
    return {name: Markup(figures.svg(figure, name, said)) for name, (figure, said) in drawn.items()}


def _loss_sentence(history: Sequence[Mapping[str, Any]]) -> str:
    losses = finite(entry.get("loss") for entry in history)
    path = f" from {losses[0]:.4g} to {losses[-1]:.4g}" if losses else ""
    return f"Loss{path} over {counted(len(history), 'epoch')}."


def _costs(blocks: BlockCosts) -> list[dict[str, str]]:
    source, target, rows = blocks.source, blocks.target, []
    for name, before, after, digits in (
        ("parameters", source.parameters, target.parameters, 0),
        ("FLOPs for one example", source.flops, target.flops, 0),
        ("latency, ms", source.latency_ms, target.latency_ms, 3),
    ):
        shown = {"before": number(before, digits), "after": number(after, digits), "ratio": _ratio(before, after)}
        rows.append({"name": name, **shown})
    return rows


def _training(result: Evaluation, history: Sequence[Mapping[str, Any]]) -> Facts:
    translator, training = result.translator, result.training
    if translator is None:
        return [("translator", "none of the run's own")]
    facts = [("translator", translator.name), ("its parameters", f"{translator.parameters:,}")]
    if training is None:
        return [*facts, ("training", "none needed")]
    facts += [("epochs", f"{training.epochs:,}"), ("chosen epoch", f"{training.best_epoch:,}")]
    facts.append((f"its {result.metric.name} on the selection hosts", result.metric.shown(training.best_select)))
    losses = finite(entry.get("loss") for entry in history)
    return [*facts, ("last loss", f"{losses[-1]:.4g}")] if losses else facts


def _stages(seconds: Mapping[str, float]) -> list[dict[str, str]]:
    total = math.fsum(seconds.values())
    rows = [*seconds.items(), ("all stages", total)] if seconds else []
    shares = [f"{100 * time / total:.1f}%" if total else "–" for _, time in rows]
    return [
        {"name": STAGES.get(name, name.replace("_", " ")), "time": _seconds(time), "share": share}
        for (name, time), share in zip(rows, shares, strict=True)
    ]


def _span(values: Iterable[float | None]) -> str:
    return f"{min(finite(values)):.4g} and {max(finite(values)):.4g}"


def _ratio(before: float | None, after: float | None) -> str:
    return f"{before / after:,.1f}×" if finite([before]) and finite([after]) and before and after else "–"


def _seconds(seconds: float) -> str:
    """Like `duration`, but with digits for short times."""
    if seconds >= 10:
        return duration(seconds)
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{1000 * seconds:.3g} ms"


def _moment(text: str) -> str:
    """An ISO time for people; anything else as it is."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{moment.day} {moment:%B %Y, %H:%M} {moment.tzname() or ''}".strip()
