"""What a run comes down to, on made-up rows."""

from __future__ import annotations

from types import SimpleNamespace

import pandas as pd
import pytest
from rich.console import Console

from afteredit.analysis.numbers.run_summary import editing_table, final_table, summarise

CHANCE = {"nli": 0.5, "reasoning": 0.0}


def row(n_edits: int, nli: float | None, reasoning: float, retained: float | None) -> dict:
    scores = {"ability/nli": nli, "ability/reasoning": reasoning, "ability/retained": retained}
    return {"n_edits": n_edits} | {key: value for key, value in scores.items() if value is not None}


def test_summary_of_a_made_up_run():
    rows = [row(0, 0.9, 0.1, 1.0), row(10, 0.9, 0.0, 1.0), row(20, 0.74, 0.0, 0.5), row(40, 0.6, 0.0, 0.25)]
    rows[0]["measurable"] = ["nli"]
    summary = summarise(rows, CHANCE)
    assert summary == {
        "summary/nli/left": pytest.approx(0.25),  # (0.6 - 0.5) / (0.9 - 0.5)
        "summary/nli/area": pytest.approx((10 * 1 + 10 * 0.8 + 20 * 0.425) / 40),
        "summary/nli/edits_until_10_percent_lost": 20.0,
        "summary/nli/edits_until_50_percent_lost": 40.0,
        "summary/retained/left": 0.25,
        "summary/retained/area": pytest.approx((10 + 7.5 + 7.5) / 40),
        "summary/retained/edits_until_10_percent_lost": 20.0,
        "summary/retained/edits_until_50_percent_lost": 20.0,
    }


def test_what_is_never_lost_is_censored_where_the_run_ended():
    rows = [row(0, 0.9, 0.1, 1.0), row(10, 0.95, 0.1, 1.1)]
    rows[0]["measurable"] = ["nli"]
    summary = summarise(rows, CHANCE)
    assert summary["summary/nli/area"] > 1  # better than before
    lost = {key: value for key, value in summary.items() if "lost" in key}
    assert lost == {f"summary/{name}/edits_until_{percent}_percent_lost_censored_at": 10.0
                    for name in ("nli", "retained") for percent in (10, 50)}  # fmt: skip


def test_without_data_there_is_neither_a_number_of_edits_nor_a_censored_one():
    rows = [row(0, 0.9, 0.1, None), row(10, None, 0.1, None)]
    rows[0]["measurable"] = ["nli"]
    assert summarise(rows, CHANCE) == {"summary/nli/left": 1.0}


def test_a_checkpoint_without_an_ability_is_left_out_of_its_curve_only():
    rows = [row(0, 0.9, 0.1, 1.0), row(10, None, 0.1, 0.5), row(20, 0.5, 0.1, 0.0)]
    rows[0]["measurable"] = ["nli"]
    summary = summarise(rows, CHANCE)
    assert summary["summary/nli/area"] == pytest.approx(0.5)
    assert summary["summary/nli/edits_until_10_percent_lost"] == 20.0
    assert summary["summary/retained/edits_until_10_percent_lost"] == 10.0


def test_a_run_without_edits_or_without_anything_measurable_has_little_to_say():
    only = {**row(0, 0.5, 0.0, None), "measurable": []}
    assert summarise([only], CHANCE) == {}
    assert summarise([{**row(0, 0.9, 0.1, 1.0), "measurable": ["nli"]}], CHANCE) == {
        "summary/nli/left": 1.0,
        "summary/retained/left": 1.0,
    }


def sample(doc_id: int, numerator: float, name: str = "nli") -> dict:
    return {"kind": "ability", "name": name, "doc_id": doc_id, "numerator": numerator, "denominator": 1.0}


@pytest.fixture
def results(tmp_path):
    """nli: 8 of 10 right before, 5 of 10 after; one example more at the end, which pairing leaves out."""
    rows = [{**row(0, 0.8, 0.1, 1.0), "measurable": ["nli"], "drift/perplexity": 20.0,
             "editing/retained/fluency": 5.5},
            {**row(4, 0.5, 0.1, 0.0), "drift/perplexity": 30.0, "editing/retained/prob/efficacy": 0.75,
             "editing/retained/fluency": 2.25, "editing/immediate/generated/portability": 0.125}]  # fmt: skip
    before, after = ([sample(i, float(i < right)) for i in range(10)] for right in (8, 5))
    noise = [{"kind": "retained", "request": "f1", "name": "prob/efficacy", "score": 1.0}]
    for n_edits, samples in ((0, before), (4, [*reversed(after), sample(99, 1.0)])):
        same = [sample(i, float(i == 0), "reasoning") for i in range(10)]
        pd.DataFrame(samples + same + noise).to_parquet(tmp_path / f"{n_edits}.parquet")
    return SimpleNamespace(rows=rows, samples_path=lambda n: tmp_path / f"{n}.parquet")


def test_the_final_table_gives_each_change_with_its_paired_interval(results):
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(final_table(results, CHANCE))
    lines = {line.split()[0] if "│" not in line else line.replace("│", " ").split()[0]: line
             for line in console.export_text().splitlines() if line.strip(" │┃━─┏┓┡┩├┼┤└┴┘╇┳")}  # fmt: skip
    assert all(text in lines["nli"] for text in ("0.50", "0.800", "0.500", "-0.300"))
    low, high = (float(text) for text in lines["nli"].split("[")[1].split("]")[0].split(","))
    assert -0.6 <= low < -0.3 < high <= 0.0 and high - low < 0.7
    assert "(not measurable)" in lines["reasoning"] and "[+0.000, +0.000]" in lines["reasoning"]
    assert "+10.000" in lines["perplexity"]


def test_the_editing_table_gives_each_way_of_looking_and_the_unedited_model_in_brackets(results):
    results.rows[0]["editing/retained/forced/paraphrase"] = 0.125
    results.rows[-1]["editing/retained/forced/paraphrase"] = 0.5
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(editing_table(results))
    lines = console.export_text().splitlines()
    (efficacy,) = (line.split("│")[1:-1] for line in lines if "retained efficacy" in line)
    (paraphrase,) = (line.split("│")[1:-1] for line in lines if "retained paraphrase" in line)
    assert [cell.strip() for cell in efficacy] == ["retained efficacy", "0.750", "", ""]
    assert [cell.strip() for cell in paraphrase] == ["retained paraphrase", "", "0.500 (0.125)", ""]
    (portability,) = (line.split("│")[1:-1] for line in lines if "portability" in line)
    (fluency,) = (line.split("│")[1:-1] for line in lines if "fluency" in line)
    assert [cell.strip() for cell in portability] == ["immediate portability", "", "", "0.125"]
    assert [cell.strip() for cell in fluency] == ["retained fluency (bits)", "", "", "2.250 (5.500)"]
    assert not any("neighbourhood" in line for line in lines)


def test_without_fluency_the_editing_table_does_not_speak_of_it(results):
    for row in results.rows:
        del row["editing/retained/fluency"]
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(editing_table(results))
    assert "fluency" not in console.export_text()


@pytest.mark.parametrize("table", [lambda results: final_table(results, CHANCE), editing_table])
def test_tables_can_be_read_on_a_terminal_of_80_columns(results, table):
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table(results))
    assert "…" not in console.export_text()
