"""Roles of a zoo's hosts (training, selection, report), and of snapshots that are kept on their way."""

from __future__ import annotations


def snapshot(share: float) -> str:
    """The role of training hosts as they were after a share of step 1."""
    return f"train@{share}"


def trained_as(role: str) -> tuple[str, float]:
    """The role in which hosts are trained, and the share of step 1 after which they are kept; 1 but for snapshots."""
    base, _, share = role.partition("@")
    return base, float(share or 1)
