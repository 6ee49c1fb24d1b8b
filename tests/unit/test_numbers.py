"""Numbers that people give and are told: flags take finite ones alone, and messages count in singular and plural."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import click
import pytest

import paramtrans
from paramtrans import Allotment, Budget, FlopBudget, LatencyBudget, SpecMismatch
from paramtrans.cli.main import main
from paramtrans.plugins import components
from paramtrans.utils.counts import counted

ROOT = Path(paramtrans.__file__).parent
ODD = ("nan", "inf", "-inf", "-1", "1e400")


def _options(command: click.Command) -> list[click.Option]:
    below = command.commands.values() if isinstance(command, click.Group) else ()
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    return options + [option for inner in below for option in _options(inner)]


def _takes_a_number(option: click.Option) -> bool:
    try:
        value = option.type.convert("7", None, None)
    except click.BadParameter:
        return False
    return isinstance(value, (int, float)) and not isinstance(value, bool)


NUMBERS = {
    f"{entry.name} {option.opts[-1]}": option
    for entry in components().of_kind("command")
    for option in _options(entry.resolve())
    if _takes_a_number(option)
}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("odd", ODD)
def test_every_flag_that_takes_a_number_refuses_what_is_none(name: str, odd: str) -> None:
    with pytest.raises(click.BadParameter):
        NUMBERS[name].type.convert(odd, None, None)


@pytest.mark.parametrize("flag", ["--ratio", "--parameters", "--flops", "--latency", "--multiple-of", "--least"])
@pytest.mark.parametrize("value", ODD)
def test_a_width_that_is_no_number_is_a_mistake_of_the_command_line(flag: str, value: str, capsys: Any) -> None:
    assert main(["translate", "none.safetensors", "--arch", "timm:resnet18", f"{flag}={value}"]) == 2
    assert flag in capsys.readouterr().err


@pytest.mark.parametrize("budget", [math.nan, math.inf, -math.inf, 0, -5, True])
@pytest.mark.parametrize(
    "rule",
    [Budget, FlopBudget, LatencyBudget, Allotment, lambda value: Allotment(flops=value)],
    ids=["parameters", "flops", "latency", "allotted parameters", "allotted flops"],
)
def test_a_rule_takes_no_budget_that_is_no_number(rule: Any, budget: float) -> None:
    with pytest.raises(SpecMismatch, match=r"is no budget; give a finite number above 0"):
        rule(budget)


@pytest.mark.parametrize(
    ("number", "noun", "said"),
    [(0, "block", "0 blocks"), (1, "block", "1 block"), (1, "group of units", "1 group of units"),
     (2, "group of units", "2 groups of units"), (1234, "test image", "1,234 test images")],
)  # fmt: skip
def test_what_is_counted_is_in_the_singular_where_it_is_one(number: int, noun: str, said: str) -> None:
    assert counted(number, noun) == said


PLURAL = re.compile(
    r"(?:''|\"\") if [^}]*== 1 else|\{len\([^{}]*\)(?::,)?\} (?:[a-z]+ )?(?!bytes|times)[a-z]+[^s]s\b|[a-z]{3,}\(s\)"
)
"""How a message would make a plural of its own."""
READ_BY_PEOPLE = [p for p in ROOT.rglob("*.py") if p.relative_to(ROOT).parts[0] not in ("testing", "backends")]


def test_no_message_makes_a_plural_of_its_own() -> None:
    made = {
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in READ_BY_PEOPLE
        for line in path.read_text(encoding="utf-8").splitlines()
        if PLURAL.search(line)
    }
    assert {line for line in made if not line.startswith("utils/counts.py")} == set()
