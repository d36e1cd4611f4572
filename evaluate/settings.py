"""The top-level keys that decide what is measured."""

from __future__ import annotations

from dataclasses import dataclass, field

from afteredit.store.field_roles import MEASUREMENT, decides


@dataclass(frozen=True)
class MeasureSettings:
    """What is measured at every checkpoint, beside the tasks of `task`."""

    data: str = field(metadata=decides(MEASUREMENT))  # mini, hub, or a folder of JSON-lines files
    limit: int | None = field(metadata=decides(MEASUREMENT))  # rows per ability; null: all
    harness: list[str] = field(metadata=decides(MEASUREMENT))  # tasks that lm-eval ships, measured beside the abilities
    held_out: str | None = field(metadata=decides(MEASUREMENT))  # text file for perplexity; null: the embedded text
    held_out_tokens: int = field(metadata=decides(MEASUREMENT))
