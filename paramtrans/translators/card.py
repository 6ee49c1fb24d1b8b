"""A translator's card: what it was trained on and what was measured, beside it as JSON and as a page to read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from paramtrans.api.records import (
    BlockCosts,
    Document,
    Evaluation,
    MeasuredBy,
    MethodResult,
    OwnTranslator,
    RunRecord,
    Trained,
)
from paramtrans.errors import Damaged
from paramtrans.report import findings, html
from paramtrans.storage import files, json_files
from paramtrans.utils.templates import environment

FORMAT = 1
CARD, PAGE = "card.json", "README.md"


class Results(Document):
    """What a card repeats of a run's evaluation."""

    metric: MeasuredBy = MeasuredBy()
    methods: dict[str, MethodResult]
    translator: OwnTranslator | None
    zoo: dict[str, int]
    blocks: BlockCosts
    training: Trained | None


class Card(BaseModel):
    """What is known of a translator's run."""

    model_config = ConfigDict(frozen=True, strict=True)
    name: str
    started: str
    config: dict[str, Any]
    """The run's config, complete, without where it was made."""
    results: Results
    """The metric of all methods on the report hosts, the hosts' numbers, the blocks' costs."""
    versions: dict[str, str]
    plugins: list[str]


def of_run(record: RunRecord, evaluation: Evaluation) -> Card:
    """The card of a run's translator, from its `run.json` and `evaluation.json`."""
    config = {key: value for key, value in record.config.items() if key not in ("run", "executor")}
    results = Results(**{key: getattr(evaluation, key) for key in Results.model_fields})
    return Card(
        name=record.name,
        started=record.started,
        config=config,
        results=results,
        versions=record.versions,
        plugins=record.plugins,
    )


def write(folder: Path, card: Card) -> None:
    """Write a card into a translator's folder: `card.json`, and `README.md`, which hubs show."""
    json_files.write_sealed(folder / CARD, {"format": FORMAT, **card.model_dump(mode="json", exclude_unset=True)})
    files.write_bytes(folder / PAGE, page(card).encode("utf-8", errors="replace"))


def read(folder: Path) -> Card | None:
    """The card in a translator's folder; None without one, `Damaged` where it is not what was written."""
    path = folder / CARD
    if not os.path.lexists(path):
        return None
    document = json_files.unsealed(path, json_files.read_json(path))
    json_files.check_format(path, document.get("format"), (FORMAT,))
    try:
        return Card.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise Damaged(f"{path}: is no card of a translator: {where}: {first['msg']}") from error


def page(card: Card) -> str:
    """The card in Markdown, with the header that hubs read."""
    return (
        environment()
        .get_template("card.md.jinja")
        .render(
            card=card,
            headline=" ".join(findings.headline(card.results)),
            measured=findings.in_words(card.results.metric),
            table=findings.markdown_table(card.results),
            trained_on=_trained_on(card),
            blocks=card.results.blocks,
            versions=", ".join(f"{name} {version}" for name, version in card.versions.items()),
            plugins=", ".join(card.plugins),
            text=text,
        )
    )


def _trained_on(card: Card) -> list[tuple[str, str]]:
    config = card.config
    rows = [
        ("task", _component(config["task"])),
        ("source block", _component(config["source"])),
        ("target block", _component(config["target"])),
        ("hosts", html.host_counts(card.results.zoo)),
        ("step 1 (hosts)", _options(config["zoo"]["step1"])),
        ("step 2 (target blocks)", _options(config["zoo"]["step2"])),
        ("translator", _component(config["translator"])),
        ("objectives", "; ".join(map(_component, config["objectives"]))),
        ("augmenters", "; ".join(map(_component, config["augmenters"])) or "none"),
        ("training", _options(config["training"])),
    ]
    return [(what, text(said)) for what, said in rows]


def _component(part: Mapping[str, Any]) -> str:
    options = _options({key: value for key, value in part.items() if key != "name"})
    return f"{part['name']} ({options})" if options else str(part["name"])


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {json.dumps(value)}" for key, value in options.items() if value is not None)


def text(value: object) -> str:
    """Words from elsewhere, made harmless in Markdown: one line, no markup, no HTML."""
    shown = "".join(c if c.isprintable() else " " for c in str(value))
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>#|!" else c for c in shown)
