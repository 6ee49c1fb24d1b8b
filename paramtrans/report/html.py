"""What a run found: a table for the terminal, and one page, complete in itself, to send to a colleague."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup
from rich.table import Table
from rich.text import Text

from paramtrans.api.records import BlockCosts, BreakEven, Evaluation, MethodResult, RunRecord
from paramtrans.config.toml_writer import toml
from paramtrans.ops.statistics import gap_closed
from paramtrans.report import figures
from paramtrans.report.figures import finite, label, ordered
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
NOT_RIVALS = ("source", "trained_target", "translated")
STAGES = {"zoo_step1": "step 1: the hosts", "zoo_step2": "step 2: target blocks", "training": "step 3: the translator"}
GAP = ("random_init", "translated", "trained_target")


def table(methods: Mapping[str, MethodResult]) -> Table:
    """Accuracies of all methods, for a terminal."""
    shown = Table(title="Accuracy on the report hosts, %", title_justify="left")
    shown.add_column("method")
    for heading in ("mean", "95% interval", "min", "max", "n"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for row in _methods(methods):
        cells = [row["label"], row["mean"], row["interval"], row["min"], row["max"], row["n"]]
        # Text, because a name from a plugin is no markup.
        shown.add_row(*map(Text, cells), style="bold green" if row["name"] == "translated" else None)
    return shown


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
            headline=headline(result.methods),
            about=about(run, result),
            meanings=meanings(result.methods),
            tiles=_tiles(result),
            examples=_examples(result, run.config),
            methods=_methods(result.methods),
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
    """What accuracies were measured on, in words; older results do not count it."""
    kind = "examples held out of training" if document.get("evaluation", {}).get("holdout") else "test examples"
    return f"the {kind}" if result.examples is None else f"{result.examples:,} {kind}"


def markdown_table(methods: Mapping[str, MethodResult]) -> str:
    """Accuracies of all methods, in Markdown."""
    lines = ["| method | mean % | 95% interval | min | max | hosts |", "| --- | --- | --- | --- | --- | --- |"]
    for row in _methods(methods):
        cells = (row[key] for key in ("label", "mean", "interval", "min", "max", "n"))
        lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    return "\n".join(lines)


def headline(methods: Mapping[str, MethodResult]) -> list[str]:
    """The finding in a sentence or two."""
    if "translated" not in methods:
        return ["No translated block was evaluated."]
    translated = methods["translated"]
    first = f"Translated blocks reach {_percent(translated.mean)}"
    if len(finite(translated.ci95)) == 2:
        first += f" (95% interval {interval(translated.ci95)})"
    first += f" on {counted(translated.n, 'report host')}"
    others = [f"the source network has {_percent(methods['source'].mean)}"] if "source" in methods else []
    names = [name for name in ordered(methods) if name not in NOT_RIVALS]
    rivals = {name: mean for name in names for mean in finite([methods[name].mean])}
    if rivals:
        best = max(rivals, key=lambda name: rivals[name])
        has = "" if others else " has"
        others.append(f"the best rival ({label(best)}){has} {_percent(rivals[best])}")
    sentences = [first + "; " * bool(others) + ", ".join(others) + "."]
    if rivals and translated.mean is not None and rivals[best] >= translated.mean:
        sentences.append("So that rival does at least as well.")
    return sentences + _gap_sentence(methods)


def _gap_sentence(methods: Mapping[str, MethodResult]) -> list[str]:
    share = _gap(methods)
    if share is None:
        return []
    low, high = (_percent(methods[name].mean) for name in ("random_init", "trained_target"))
    closed = f"{100 * share:.1f}%" if share > 0 else "none"
    return [f"That closes {closed} of the gap from random initialisation ({low}) to the trained target ({high})."]


def _gap(methods: Mapping[str, MethodResult]) -> float | None:
    """Share of the gap that the translated block closes; None without a gap."""
    return gap_closed({name: method.mean for name, method in methods.items()}, "translated")


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


def _methods(methods: Mapping[str, MethodResult]) -> list[dict[str, str]]:
    return [
        {
            "name": name,
            "label": label(name),
            "mean": number(method.mean),
            "interval": interval(method.ci95),
            "min": number(method.min),
            "max": number(method.max),
            "n": f"{method.n:,}",
        }
        for name, method in ((name, methods[name]) for name in ordered(methods))
    ]


def _tiles(result: Evaluation) -> Facts:
    """The few numbers that stand large at the top: (number, what it is)."""
    methods, source, target = result.methods, result.blocks.source, result.blocks.target
    tiles = [(_percent(methods["translated"].mean), "accuracy, translated")] if "translated" in methods else []
    if (share := _gap(methods)) is not None:
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
    return f"Hosts of the zoo: {counts}. Seeds and accuracies of each report host are in evaluation.json."


def _figures(result: Evaluation, history: Sequence[Mapping[str, Any]], maps: Mapping[str, Tensor]) -> dict[str, Markup]:
    """By name, the figures that there is something to show in."""
    hosts = result.hosts.accuracies
    drawn: dict[str, tuple[Any, str]] = {}
    if rows := [f"{row['label']} {row['mean']}" for row in _methods(result.methods)]:
        drawn["accuracies"] = (figures.accuracies(result), f"Mean accuracy in percent: {', '.join(rows)}.")
    if finite(hosts.get("translated", [])):
        spans = ", ".join(f"{label(name)} between {_span(hosts[name])}" for name in GAP if finite(hosts.get(name, [])))
        drawn["histogram"] = (figures.histogram(hosts), f"Histogram of host accuracies in percent: {spans}.")
    if maps:
        names = ", ".join(figures.MAPS.get(name, label(name)) for name in maps)
        drawn["maps"] = (figures.feature_maps(maps), f"Grid of feature maps: {names}.")
    if history:
        best = result.training.best_epoch if result.training else None
        drawn["training"] = (figures.training(history, best), _loss_sentence(history))
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
    facts.append(("its accuracy on the selection hosts", _percent(training.best_select)))
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


def number(value: float | None, digits: int = 1) -> str:
    return f"{value:,.{digits}f}" if finite([value]) else "–"


def _percent(value: float | None) -> str:
    return f"{value:.1f}%" if finite([value]) else "–"


def interval(ends: Sequence[float | None]) -> str:
    return "–".join(map(number, ends)) if len(finite(ends)) == 2 else "–"


def _span(values: Iterable[float | None]) -> str:
    return f"{min(finite(values)):.1f} and {max(finite(values)):.1f}"


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
