"""Holds the top-level keys of the config that decide what is measured."""

from __future__ import annotations

from dataclasses import dataclass, field

from afteredit.store.field_roles import MEASUREMENT, decides


@dataclass(frozen=True)
class MeasureSettings:
    """Holds what is measured at every checkpoint, besides the abilities of `task`."""

    data: str = field(metadata=decides(MEASUREMENT, by_content=True))  # mini, hub, or a folder of files of rows
    limit: int | None = field(metadata=decides(MEASUREMENT))  # rows per ability; null: all
    harness: list[str] = field(metadata=decides(MEASUREMENT, by_content=True))  # tasks that lm-eval ships, measured too
    held_out: str | None = field(metadata=decides(MEASUREMENT, by_content=True))  # text file; null: the embedded text
    held_out_tokens: int = field(metadata=decides(MEASUREMENT))
    change_shares: list[float] = field(metadata=decides(MEASUREMENT))  # shares of entries that moved further than these
