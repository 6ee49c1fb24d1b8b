"""The index of an exported zoo: what a file from elsewhere must say of recipes, shards and their records."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

PLACE = re.compile(
    r"(hosts|targets/([0-9a-f]{16}))/(train(?:@0\.\d{1,20})?|select|report)-(\d{7})-(\d{7})\.safetensors"
)
"""Where a file may stand inside an exported zoo; nothing else is read."""

Size = Annotated[int, Field(ge=0)]
Tensors = Annotated[
    list[tuple[Annotated[str, Field(pattern=r"^\w+(\.\w+)*$", max_length=500)], list[Annotated[int, Field(ge=1)]]]],
    Field(min_length=1),
]
"""Names of tensors with their shapes, of one host."""


class NamedPart(BaseModel):
    """A named part of a recipe, with its options."""

    model_config = ConfigDict(extra="allow")
    name: Annotated[str, Field(pattern=r"^[\w.-]+$", max_length=100)]


class TargetRecipe(BaseModel):
    """What of a recipe is used here."""

    format: Literal[1]
    target: NamedPart
    tensors: Tensors


class HostRecipe(BaseModel):
    """What of a recipe is used here."""

    format: Literal[1]
    task: NamedPart
    source: NamedPart
    tensors: Tensors


class Record(BaseModel):
    """What every shard's record says."""

    format: Literal[1]
    step: Literal[1, 2]
    role: str
    start: Size
    seeds: list[Size]
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    bytes: Size
    sha256: str


class Listed(BaseModel):
    """A file in an index."""

    path: str = Field(pattern=f"^{PLACE.pattern}$")
    record: Record


class Index(BaseModel):
    """The index of an exported zoo."""

    recipe: HostRecipe
    targets: dict[str, TargetRecipe]
    files: list[Listed]
