"""How much of each ability is lost, worked out by hand."""

from __future__ import annotations

import pytest

from afteredit.analysis.numbers.drops import drops
from afteredit.analysis.tables.report_tables.drops import abilities_table


def test_drops_with_paired_test_and_holm_over_all_methods(losses):
    numbers = drops(losses)
    by = numbers.set_index(["method", "ability"])
    rome = by.loc[("rome", "nli")]
    assert (rome["n_edits"], rome["n_runs"], rome["n_examples"]) == (20, 2, 20)
    assert rome["before"] == pytest.approx(0.9) and rome["after"] == pytest.approx((10 + 14) / 40)
    # 8 examples fell, in one run or in both: all of one sign, 2 of 2⁸ exchanges as far; 2 tests, the other's p is 1
    assert rome["p"] == pytest.approx(2 / 2**8) and rome["p_holm"] == pytest.approx(2 * 2 / 2**8)
    assert by.loc[("memit", "nli"), "p"] == by.loc[("memit", "nli"), "p_holm"] == 1
    assert rome["low"] < -0.3 < rome["high"] < 0


def test_what_is_not_measurable_is_marked_and_not_tested(losses):
    numbers = drops(losses)
    unmeasurable = numbers[numbers["ability"] == "reasoning"]
    assert not unmeasurable["measurable"].any() and unmeasurable[["p", "p_holm", "area"]].isna().all().all()
    text = abilities_table(losses, numbers).set_index(["method", "ability"])
    row = text.loc[("rome", "Reasoning (not measurable)")]
    assert row["p, Holm"] == "" and row["edits until 10 % lost"] == ""
    assert (row["unparseable (%)"], row["ran out (%)"]) == ("25.0 → 25.0", "12.5 → 12.5")
    rome = text.loc[("rome", "Inference")]
    assert rome["p, Holm"] == "0.016 *" and rome["change (points), 95 % interval"].startswith("−30.0 [−4")
    assert text.loc[("memit", "Inference"), "p, Holm"] == "1.000"
