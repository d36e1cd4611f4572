"""Whether perplexity warned in time."""

from __future__ import annotations

import pytest

from afteredit.analysis.tables.report_tables.warnings import verdict, warnings_table


def test_did_perplexity_warn(losses):
    said = [row["did it warn?"] for row in warnings_table(losses).to_dict("records")]
    assert said == ["false alarm so far", "too late", "in time"]  # memit; rome 1 lost at 10, warned at 20; rome 2


@pytest.mark.parametrize(
    ("warned", "lost", "said"),
    [(5, 10, "in time"), (10, 10, "at the same checkpoint"), (15, 10, "too late"), (None, 10, "no warning"),
     (5, None, "false alarm so far"), (None, None, "nothing to warn of")],
)  # fmt: skip
def test_verdicts(warned, lost, said):
    assert verdict(warned, lost) == said
