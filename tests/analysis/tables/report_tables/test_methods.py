"""What each method costs, worked out by hand."""

from __future__ import annotations

from afteredit.analysis.tables.report_tables.methods import methods_table


def test_methods_area_loss_and_collapse(losses):
    memit, rome = methods_table(losses).to_dict("records")
    assert memit["edits until 10 % lost"] == memit["edits until 50 % lost"] == memit["collapse at"] == "> 20"
    assert memit["area under retention (%)"] == "100.0" and memit["runs"] == "1"
    # seed 1: (1 + 0.75)/2 and (0.75 + 0)/2 → 62.5; seed 2: 1 and (1 + 0.5)/2 → 87.5
    assert rome["area under retention (%)"] == "75.0 (62.5–87.5)"
    assert rome["ability retained at the end (%)"] == "25.0 (0.0–50.0)"
    assert rome["edits until 10 % lost"] == "10 · 20" and rome["edits until 50 % lost"] == "20"
    assert rome["collapse at"] == "20 · > 20"
    assert rome["perplexity ÷ unedited"] == "225.62 (1.25–450.00)"
    assert rome["edits retained, generated (%)"] == "90.0"
