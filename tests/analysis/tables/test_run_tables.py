"""The tables of a run's end, on made-up runs worked out by hand."""

from __future__ import annotations

import io
from dataclasses import replace

import pandas as pd
import pytest
from rich.console import Console

from afteredit.analysis.numbers.single_edits import averaged
from afteredit.analysis.read.run import Run
from afteredit.analysis.tables.run_tables import editing_table, final_table
from afteredit.record.terminal import PlainConsole

TASKS = {"nli": {"chance": 0.5}, "ner": {"chance": 0.0}}
UNEDITED = {"n_edits": 0, "ability/nli": 0.8, "ability/ner": 0.4, "ability/retained": 1.0, "drift/perplexity": 20.0,
            "measurable": ["nli"], "editing/retained/fluency": 5.5,
            "editing/retained/forced/paraphrase": 0.125}  # fmt: skip


def edited(n_edits: int, nli: float, perplexity: float, retained: float, **editing: float) -> dict:
    return {"n_edits": n_edits, "ability/nli": nli, "ability/ner": 0.4, "ability/retained": retained,
            "drift/perplexity": perplexity, **{f"editing/{key}": value for key, value in editing.items()}}  # fmt: skip


def samples(n_edits: int, right: int) -> list[dict]:
    """Ten examples of nli, of which the first `right` are right, and five of ner with other denominators."""
    nli = [{"name": "nli", "doc_id": i, "numerator": float(i < right), "denominator": 1.0} for i in range(10)]
    ner = [{"name": "ner", "doc_id": i, "numerator": float(i < 2), "denominator": 2.5} for i in range(5)]
    other = {"kind": "retained", "request": "f1", "name": "prob/efficacy", "score": 1.0}
    return [{"n_edits": n_edits, **sample} for sample in [*({"kind": "ability", **s} for s in nli + ner), other]]


def made(setting: str, rows: list[dict], right: list[int], collapsed: tuple[int, ...] = ()) -> Run:
    examples = [sample for row, n in zip(rows, right, strict=True) for sample in samples(row["n_edits"], n)]
    edits = [{"n_edits": n, "diagnostics": {"collapsed": 1.0} if n in collapsed else {}} for n in range(1, 5)]
    config = {"setting": setting, "batch_size": 1, "task": TASKS}
    return Run("rome-tiny-1", "aaaaaaaa", config, rows, pd.DataFrame(examples), edits)


@pytest.fixture
def sequential() -> Run:
    """nli: 8 of 10 right before, 5 of the same after."""
    last = edited(4, 0.5, 30.0, 0.0, **{"retained/prob/efficacy": 0.75, "retained/fluency": 2.25,
                                         "immediate/generated/portability": 0.125,
                                         "retained/forced/paraphrase": 0.5})  # fmt: skip
    return made("sequential", [UNEDITED, last], [8, 5])


def single(*collapsed: int) -> Run:
    """nli: 5 and 9 of 10 right in two models of one edit each, of four edits."""
    rows = [edited(2, 0.5, 900.0, 0.0, **{"retained/prob/efficacy": 1.0, "retained/fluency": 2.5,
                                           "immediate/n_edits": 2, "immediate/prob/efficacy": 0.5}),
            edited(4, 0.9, 22.0, 1.25, **{"retained/prob/efficacy": 0.0, "retained/fluency": 3.5,
                                           "immediate/n_edits": 2, "immediate/prob/efficacy": 1.0})]  # fmt: skip
    return averaged(made("single", [UNEDITED, *rows], [8, 5, 9], collapsed))


def printed(table, width: int = 140) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table)
    return console.export_text()


def cells(text: str, begins: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if line.strip("│ ").startswith(begins))
    return [cell.strip() for cell in line.strip().strip("│").split("│")]


def test_the_final_table_gives_each_change_with_its_paired_interval(sequential):
    text = printed(final_table(sequential))
    name, chance, before, after, change, interval = cells(text, "nli")
    assert (name, chance, before, after, change) == ("nli", "0.50", "0.800", "0.500", "-0.300")
    low, high = (float(number) for number in interval.strip("[]").split(","))
    assert -0.6 <= low < -0.3 < high <= 0.0 and high - low < 0.7
    assert cells(text, "ner")[0] == "ner *" and cells(text, "ner")[5] == "[+0.000, +0.000]"
    assert "* not measurable: the unedited model" in text
    assert cells(text, "perplexity")[4] == "+10.000" and "after 4 edits" in text


def test_with_single_edits_it_gives_the_mean_over_models_and_the_worst():
    text = printed(final_table(single(1, 2)))
    name, chance, before, mean, change, interval, worst = cells(text, "nli")
    assert (name, chance, before, mean, change, worst) == ("nli", "0.50", "0.800", "0.700", "-0.100", "0.500")
    low, high = (float(number) for number in interval.strip("[]").split(","))
    assert -0.3 <= low < -0.1 < high <= 0.1  # of examples that changed by -1/2 (three) or +1/2 (one)
    assert cells(text, "retained")[2:] == ["1.000", "0.625", "-0.375", "", "0.000"]
    assert cells(text, "perplexity")[2:] == ["20.000", "461.000", "+441.000", "", "900.000"]
    assert "mean over the 2 models measured" in text and "1 of 2 models collapsed; NaN in the update of 1" in text
    assert "collapsed" not in printed(final_table(single()))


def test_the_editing_table_gives_each_criterion_and_the_unedited_model_in_brackets(sequential):
    text = printed(editing_table(sequential))
    assert cells(text, "retained efficacy") == ["retained efficacy", "0.750", "", ""]
    assert cells(text, "retained paraphrase") == ["retained paraphrase", "", "0.500 (0.125)", ""]
    assert cells(text, "immediate portability") == ["immediate portability", "", "", "0.125"]
    assert cells(text, "retained fluency") == ["retained fluency (bits)", "", "", "2.250 (5.500)"]
    assert "neighbourhood" not in text
    del sequential.rows[-1]["editing/retained/fluency"]
    assert "fluency" not in printed(editing_table(sequential))


def test_with_single_edits_the_editing_table_is_over_all_edits_and_over_all_models():
    text = printed(editing_table(single()))
    assert cells(text, "immediate efficacy") == ["immediate efficacy", "0.750", "", ""]
    assert cells(text, "retained efficacy") == ["retained efficacy", "0.500", "", ""]
    assert cells(text, "retained fluency") == ["retained fluency (bits)", "", "", "3.000 (5.500)"]
    assert "immediate of 4 edits" in " ".join(text.split()) and "retained of 2 models" in " ".join(text.split())


def test_without_abilities_there_is_a_table_too():
    rows = [{"n_edits": n, "drift/perplexity": p, "measurable": []} for n, p in ((0, 20.0), (4, 30.0))]
    table = final_table(Run("ft-tiny-1", "aaaaaaaa", {}, rows))
    assert cells(printed(table), "perplexity")[4] == "+10.000"


def test_tables_can_be_read_on_a_terminal_of_80_columns(sequential):
    for run in (sequential, single(2)):
        for table in (final_table(run), editing_table(run)):
            assert "…" not in printed(table, width=80)


@pytest.mark.parametrize("width", [80, 100])
def test_no_table_is_broken_by_a_narrow_terminal_and_a_broken_model(sequential, width):
    """Eight abilities with long names, none of them measurable, and a perplexity of twenty digits."""
    names = {f"summarization{n}": 0.5 for n in range(8)}
    rows = [{**row, **{f"ability/{name}": 0.5 for name in names}} for row in sequential.rows]
    rows[-1]["drift/perplexity"] = 12345678901234567890.0
    console = PlainConsole(file=io.StringIO(), width=width)
    console.print(final_table(replace(sequential, rows=[{**rows[0], "chance": names}, *rows[1:]])))
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width and "1.2e+19" in console.file.getvalue()
    assert sum("summarization" in line and line.count("0.500") == 2 for line in lines) == 8  # none is folded
