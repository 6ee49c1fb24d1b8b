"""Checks of every kind of component, and of the plugins that announce them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from pydantic import ValidationError

from paramtrans.api.adapter import BlockAdapter
from paramtrans.api.architecture import ArchitectureSource
from paramtrans.api.augmenter import Augmenter
from paramtrans.api.executor import Executor
from paramtrans.api.metric import Metric
from paramtrans.api.objective import Objective
from paramtrans.api.options import validate
from paramtrans.api.probes import Probes
from paramtrans.api.report_section import ReportSection
from paramtrans.api.rival import Rival
from paramtrans.api.task import Task
from paramtrans.api.translator import Translator
from paramtrans.networks.widths import WidthRule
from paramtrans.testing.check import CheckFailed, Subject, check, expect, named

BASES: dict[str, type] = {
    "block_adapter": BlockAdapter,
    "translator": Translator,
    "augmenter": Augmenter,
    "objective": Objective,
    "rival": Rival,
    "probe": Probes,
    "task": Task,
    "executor": Executor,
    "architecture": ArchitectureSource,
    "width_rule": WidthRule,
    "metric": Metric,
    "report_section": ReportSection,
}
"""Kinds that have checks, with the class that each of their components is a subclass of."""


@check(*BASES)
def right_kind(subject: Subject) -> None:
    """The class is of its kind, implements all of it, and has a summary of one line."""
    expect(not subject.clash, "a name of its own", subject.clash)
    base = BASES[subject.kind]
    is_class = isinstance(subject.cls, type) and issubclass(subject.cls, base)
    expect(is_class, f"a subclass of {base.__name__}", repr(subject.cls))
    left = sorted(subject.cls.__abstractmethods__)
    expect(not left, "every abstract method implemented", f"{named(left)} left")
    summary = subject.entry.component.summary
    expect(bool(summary) and "\n" not in summary, "a summary of one line in its Component", repr(summary))


@check(*BASES)
def can_be_built(subject: Subject) -> None:
    """The options it is tried with are options it takes."""
    try:
        validate(subject.cls.Options, subject.options, "")
    except Exception as error:
        raise CheckFailed(
            f"expected options to try it with, in `trials` on the class or by --set; found {error}"
        ) from error


@check(*BASES)
def unknown_options_are_refused(subject: Subject) -> None:
    """An option that it does not know is an error, and options do not change once they are made."""
    model = subject.cls.Options
    try:
        model(**subject.options, no_such_option=1)
    except ValidationError as error:
        types = [finding["type"] for finding in error.errors()]
        expect(types == ["extra_forbidden"], "the unknown option refused, and nothing else", types)
    else:
        raise CheckFailed("expected the unknown option no_such_option refused; found it accepted")
    expect(model.model_config.get("frozen") is True, "frozen options", "options that can be assigned to")


@check(*BASES)
def options_are_documented(subject: Subject) -> None:
    """Every option has a docstring."""
    fields = subject.cls.Options.model_fields
    bare = [name for name, field in fields.items() if not field.description]
    expect(not bare, "a docstring below every option", f"none below {named(bare)}")


@check(*BASES)
def options_survive_json(subject: Subject) -> None:
    """Written as JSON and read again, options are the same; runs and translators keep them so."""
    model = subject.cls.Options
    options = validate(model, subject.options, "")
    again = validate(model, json.loads(options.model_dump_json()), "")
    expect(again == options, f"{options!r} again", repr(again))


@check("plugin")
def imports_without_torch(subject: Subject) -> None:
    """The module that announces components is imported, and its hooks called, without torch."""
    module = subject.entry.component.target.partition(":")[0]
    code = (
        "import importlib, inspect, sys\n"
        f"plugin = importlib.import_module({module!r})\n"
        "hooks = [f for n, f in vars(plugin).items() if n.startswith('paramtrans_') and callable(f)]\n"
        "[hook() for hook in hooks if not inspect.signature(hook).parameters]\n"
        "print('torch' in sys.modules)"
    )
    done: Any = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    expect(done.returncode == 0, f"{module} to be imported", done.stderr.strip().rpartition("\n")[2])
    expect(
        done.stdout.strip().endswith("False"),
        f"{module} to import no torch, so that listing plugins stays fast; name classes as text in Component",
        "torch imported",
    )
