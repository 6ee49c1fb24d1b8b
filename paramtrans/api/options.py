"""The base of every component's options: pydantic models that refuse what they do not know."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from paramtrans.errors import ConfigError
from paramtrans.utils.documents import MOST_DEPTH
from paramtrans.utils.near import did_you_mean

MAX_SHOWN = 50
"""Mistakes of one record that are told at most."""


class BaseOptions(BaseModel):
    """Options of one component. An unknown option is an error, never ignored; values do not change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


Trials: TypeAlias = Sequence[Mapping[str, Any]]


class Configurable:
    """The base of every kind of component: which options it takes, and some to try it with."""

    Options: ClassVar[type[BaseOptions]] = BaseOptions
    trials: ClassVar[Trials] = ({},)
    """Options that tests and `paramtrans check` try it with: small sizes, each way of working once. None at all where
    it cannot be tried without help, such as a download."""
    needs_registry: ClassVar[bool] = False
    """Whether it looks up further components: its class then takes `registry`, the one that it was found in."""


Model = TypeVar("Model", bound=BaseOptions)


def validate(model: type[Model], values: Mapping[str, Any], where: str, also_known: Iterable[str] = ()) -> Model:
    """Values as a record of a model.

    Args:
        model: The class of the record.
        values: By name, as from TOML or JSON.
        where: What each message begins with.
        also_known: Names that stand in the same place and are checked elsewhere; they are offered as near names too.

    Raises:
        ConfigError: all mistakes, each behind `where` and its path.
    """
    if large := list(_too_large(values, where)):
        raise ConfigError(large)
    try:
        # As JSON, because strictness is what one expects there: `true` is no number and "3" is none, a list is a tuple.
        return model.model_validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        raise ConfigError(problems(error, where, model, also_known)) from None
    except (ValueError, TypeError, RecursionError) as error:  # nesting without end, or a validator's own
        raise ConfigError([f"{where.removesuffix(': ')}: {error}"]) from None


def _too_large(value: Any, where: str, depth: int = 0) -> Iterator[str]:
    """Whole numbers that have no room in 64 bits, as sizes and seeds must: a message each."""
    if isinstance(value, Mapping | list | tuple) and depth < MOST_DEPTH:
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, below in items:
            yield from _too_large(below, f"{where}{'' if where.endswith(': ') else '.'}{key}", depth + 1)
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        yield f"{where}: a whole number of more than 64 bits; give a smaller one"


def problems(error: ValidationError, where: str, model: type[BaseModel], also_known: Iterable[str] = ()) -> list[str]:
    """Pydantic's findings as messages.

    Args:
        error: What pydantic raised.
        where: What each message begins with.
        model: The class that was validated.
        also_known: Names that stand in the same place and are checked elsewhere.

    Returns:
        A line each: `where`, the dotted path, what is wrong, and a near name for an unknown one.
    """
    findings = error.errors()
    more = [f"{where.removesuffix(': ')}: and {len(findings) - MAX_SHOWN:,} more"] if len(findings) > MAX_SHOWN else []
    findings = findings[:MAX_SHOWN]
    places = [finding["loc"] for finding in findings]
    lines = []
    for finding in findings:
        place = finding["loc"]
        # A sequence whose only item is wrong also counts as too short; the item's own mistake says it all.
        if finding["type"] == "too_short" and any(other[: len(place)] == place != other for other in places):
            continue
        path = ".".join(map(str, place))
        place_of = f"{where}{path}" if where.endswith(": ") else f"{where}.{path}"
        lines.append(f"{place_of.rstrip('.: ')}: {_message(finding, model, also_known)}")
    return lines + more


def _message(finding: Any, model: type[BaseModel], also_known: Iterable[str]) -> str:
    if finding["type"] == "extra_forbidden":
        *place, name = finding["loc"]
        options = sorted({*_fields(model, place), *also_known})
        return "unknown option" + did_you_mean(str(name), options, f"known: {', '.join(options) or 'none'}")
    if finding["type"] == "missing":
        return "required, but not given"
    message: str = finding["msg"].removeprefix("Value error, ")
    shown = repr(finding["input"])
    is_plain = not isinstance(finding["input"], dict | list | BaseModel)
    return f"{message}, not {shown[:60]}{'…' * (len(shown) > 60)}" if is_plain else message


def _fields(model: Any, place: Iterable[int | str]) -> list[str]:
    """Names of the options at a place inside a model."""
    for key in place:
        if isinstance(key, int):  # a place in a list, whose items the model already is
            continue
        field = getattr(model, "model_fields", {}).get(key)
        if field is None:
            return []
        # `Model | None` and `tuple[Model, ...]` are looked into.
        inner = (field.annotation, *get_args(field.annotation))
        model = next((type_ for type_ in inner if hasattr(type_, "model_fields")), field.annotation)
    return list(getattr(model, "model_fields", {}))
