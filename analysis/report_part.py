"""What one file of the report gives: a heading with pictures or a table under it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Part:
    """Holds one heading of the report, and what stands under it.

    Every file in `pictures/report_charts/` and `tables/report_tables/` has a function
    `part(comparison, checkpoints) -> Part | None` (None: there is nothing to show) and a number PLACE; the report shows
    all parts in the order of PLACE.  `checkpoints` are the numbers of edits that the user chose, or empty.
    """

    title: str
    note: str = ""
    figures: Mapping[str, Figure] = field(default_factory=dict)  # by file name
    table: pd.DataFrame | None = None  # as text
    numbers: Mapping[str, pd.DataFrame] = field(default_factory=dict)  # tables to lie beside the page, by file name
    alt: str = ""  # describes the pictures to those who cannot see them; the title where it is empty
    lead: Sequence[str] = ()  # sentences above the pictures
    # what was said, as text, to be searched in place of `table`: its columns, and `change` and `run`
    examples: pd.DataFrame | None = None
