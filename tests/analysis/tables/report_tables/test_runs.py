"""By what each run was made, as a table."""

from __future__ import annotations

from dataclasses import replace

from afteredit.analysis.read.made import Made
from afteredit.analysis.tables.report_tables.runs import part


def test_what_is_known_of_a_run_stands_in_its_row_and_what_none_says_in_no_column(losses):
    assert list(part(losses, []).table) == ["method", "seed", "run", "edits"]
    first = losses.runs["rome"][0]
    made = Made(["python run.py", "python run.py n_edits=20"], "abc", "2026-11-29T21:43:05+00:00")
    table = part(replace(losses, runs={**losses.runs, "rome": [replace(first, made=made)]}), []).table
    assert table.to_dict("records")[1] == {
        "method": "rome", "seed": "1", "run": first.name, "edits": "20", "began (UTC)": "2026-11-29 21:43",
        "commit": "abc", "command": "python run.py\npython run.py n_edits=20"}  # fmt: skip
