"""By what a run was made: its commands, commit, date and W&B run, as its environment.json or W&B says it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Made:
    """Holds what is known of how a run came about; what older versions and copies do not say is empty."""

    commands: Sequence[str] = ()  # that began the run and went on with it
    commit: str = ""  # of this program, or its release
    began: str = ""  # when, in UTC: 2026-11-29T21:43:05+00:00
    url: str = ""  # of its W&B run


def made(stored: Mapping[str, Any], evaluation: str) -> Made:
    """Returns what an environment.json says, which may come from anywhere, of the run under one evaluation."""
    wandb = [ids for ids in _list(stored.get("wandb")) if isinstance(ids, Mapping) and ids.get("results") == evaluation]
    urls = _texts(ids.get("url") for ids in wandb)
    last = {key: (_texts([stored.get(key)]) or [""])[-1] for key in ("commit", "began")}
    return Made(_texts(_list(stored.get("commands"))), **last, url=(urls or [""])[-1])


def addresses(stored: Mapping[str, Any]) -> list[str]:
    """Returns the addresses of all W&B runs that an environment.json names, each once."""
    urls = _texts(ids.get("url") for ids in _list(stored.get("wandb")) if isinstance(ids, Mapping))
    return list(dict.fromkeys(urls))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _texts(values: Iterable[Any]) -> list[str]:
    return [value for value in values if isinstance(value, str) and value]
