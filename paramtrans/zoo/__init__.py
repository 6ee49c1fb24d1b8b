"""Populations of hosts to learn from: trained, kept in shards, exported and imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paramtrans.utils.lazy import face

if TYPE_CHECKING:
    from paramtrans.zoo.collection import Zoos as Zoos
    from paramtrans.zoo.jobs import do_job as do_job
    from paramtrans.zoo.zoo import ROLES as ROLES, Zoo as Zoo
else:
    __getattr__, __dir__, __all__ = face(
        __name__,
        {
            "collection": ["Zoos"],
            "jobs": ["do_job"],
            "zoo": ["ROLES", "Zoo"],
        },
    )
