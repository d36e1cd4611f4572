"""Scores of one's own abilities; conf/task/capitals.yaml names them by dotted path."""

from __future__ import annotations


def named(doc: dict, results: list[str]) -> dict[str, float]:
    """Returns whether the answer begins with the city that is wanted."""
    return {"named": float(results[0].strip().lower().startswith(doc["city"].lower()))}
