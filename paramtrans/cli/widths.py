"""The options of `translate` that say how wide blocks become."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from paramtrans.cli.flags import Positive
from paramtrans.errors import ConfigError

OPTIONS = (
    click.option(
        "--ratio",
        type=Positive(),
        help="Share of the hidden units that stay; 0.5 by default. Trained translators have a size of their own.",
    ),
    click.option(
        "--parameters", type=click.IntRange(1), help="Instead of --ratio: parameters that the network may have."
    ),
    click.option("--flops", type=click.IntRange(1), help="Instead of --ratio: operations that one example may take."),
    click.option(
        "--latency",
        type=Positive(),
        metavar="MS",
        help="Instead of --ratio: milliseconds for the first batch of --calibrate.",
    ),
    click.option("--measured", is_flag=True, help="With a budget: keep most units where they matter most."),
    click.option(
        "--multiple-of",
        type=click.IntRange(1),
        metavar="N",
        help="Widths are multiples of this; by default of 8 where there are 64 units or more, else of 1.",
    ),
    click.option("--least", type=click.IntRange(1), metavar="N", help="Fewest units that stay in a group."),
    click.option("--widths", "rule", metavar="NAME", help="Instead of all these: a rule; its options by --option."),
)


def width_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command with all these options; it gets them as `**widths`."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def chosen_widths(
    widths: dict[str, Any],
    measured_by: tuple[Any, dict[str, Any]],
    rule_options: dict[str, Any],
    usual: float = 0.5,
) -> Any:
    """The rule for widths; None where no option asks for one.

    Args:
        widths: What the options hold.
        measured_by: The translator that losses are measured with, and its options.
        rule_options: Options of the rule that --widths names.
        usual: Share of the hidden units where only rounding is asked for.

    Raises:
        ConfigError: options exclude each other.
    """
    from paramtrans.networks.allocation import Allotment
    from paramtrans.networks.widths import Budget, FlopBudget, LatencyBudget, Ratio
    from paramtrans.plugins.manager import components

    rule, measured = widths["rule"], widths["measured"]
    budgets = {name: widths[name] for name in ("ratio", "parameters", "flops", "latency") if widths[name] is not None}
    rounding = {name: widths[name] for name in ("multiple_of", "least") if widths[name] is not None}
    if rule is not None:
        if measured or budgets or rounding:
            raise ConfigError(
                [
                    "--widths: is instead of --ratio, --parameters, --flops, --latency, --measured, --multiple-of and "
                    "--least; give one of them"
                ]
            )
        return components().create("width_rule", rule, **rule_options)
    if len(budgets) > 1:
        raise ConfigError(["--ratio, --parameters, --flops and --latency: give one of them"])
    name, value = next(iter(budgets.items()), ("ratio", None))
    if measured:
        if name == "ratio":
            raise ConfigError(
                ["--measured: give --parameters (by units also --flops or --latency), the budget that is to be kept"]
            )
        translator, options = measured_by
        limits: Any = {{"latency": "milliseconds"}.get(name, name): value}
        return Allotment(**limits, translator=translator, options=options, **rounding)
    if name == "ratio":
        return Ratio(usual if value is None else value, **rounding) if value is not None or rounding else None
    rules: Any = {"parameters": Budget, "flops": FlopBudget, "latency": LatencyBudget}
    return rules[name](value, **rounding)
