"""The base of every component's options: pydantic models that refuse what they do not know."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class BaseOptions(BaseModel):
    """Options of one component. An unknown option is an error, never ignored; values do not change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)
