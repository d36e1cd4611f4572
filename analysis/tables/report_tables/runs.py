"""Tabulates by what each run was made: command, commit, date and W&B run."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from afteredit.analysis.numbers.comparison import Comparison
from afteredit.analysis.report_part import Part

PLACE = 95


def part(comparison: Comparison, checkpoints: Sequence[int]) -> Part:
    rows = [{"method": label, "seed": str(run.seed), "run": run.name, "edits": str(run.n_edits),
             "began (UTC)": run.made.began[:16].replace("T", " "), "commit": run.made.commit, "W&B": run.made.url,
             "command": "\n".join(run.made.commands)}
            for label, runs in comparison.runs.items() for run in runs]  # fmt: skip
    table = pd.DataFrame(rows)
    known = [name for name in table if any(table[name])]  # copies do not say all of it
    return Part("Runs", "What began each run and went on with it, and under which version of this program.",
                table=table[known])  # fmt: skip
