"""Holds the top-level keys of the config that decide what is measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from afteredit.store.errors import BadInput
from afteredit.store.field_roles import MEASUREMENT, decides


@dataclass(frozen=True)
class MeasureSettings:
    """Holds what is measured at every checkpoint, besides the abilities of `task`."""

    data: str = field(metadata=decides(MEASUREMENT, by_content=True))  # mini, hub, or a folder of files of rows
    limit: int | None = field(metadata=decides(MEASUREMENT))  # rows per ability; null: all
    harness: list[str] = field(metadata=decides(MEASUREMENT, by_content=True))  # tasks of lm-eval's, measured too
    harness_path: str | None = field(metadata=decides(MEASUREMENT, by_content=True))  # folder of more such
    held_out: str | None = field(metadata=decides(MEASUREMENT, by_content=True))  # text file; null: the embedded text
    held_out_tokens: int = field(metadata=decides(MEASUREMENT))
    change_shares: list[float] = field(metadata=decides(MEASUREMENT))  # shares of entries that moved further than these


def names_of_shares(shares: Sequence[float]) -> dict[str, float]:
    """Returns the shares by the names of their numbers: "0.077".  Raises BadInput where two would have one name."""
    names = [f"{share:g}" for share in shares]
    name, n = (Counter(names).most_common(1) or [("", 0)])[0]
    if n > 1:
        raise BadInput(f"change_shares={list(shares)} holds {n} shares that are both {name} in six digits, the name of "
                       "their number; leave one out")  # fmt: skip
    return dict(zip(names, shares, strict=True))
