"""What the model said before and after a few edits is shown at the end of their run."""

from io import StringIO

from rich.console import Console

from afteredit.analysis.tables.answers import answers_table


def record(n: int, *texts: tuple[str, str, str, str]) -> dict:
    keys = ("group", "prompt", "before", "after")
    said = [{"request": f"f{n}", **dict(zip(keys, text, strict=True))} for text in texts]
    return {"n_edits": n, "requests": [{"id": f"f{n}"}], "generated": said}


ONE = record(1, ("efficacy", "Peru's capital is", " Lima.\nIt", " Oslo"), ("paraphrase", "Peru's seat is", " Lima", ""),
             ("neighbourhood", "Chile's capital is", " Santiago", " Santiago"))  # fmt: skip


def test_every_prompt_stands_in_a_row_with_both_answers_in_one_line():
    (table,) = answers_table([ONE])
    console = Console(width=100, record=True, file=StringIO())
    console.print(table)
    cells = [[cell.strip() for cell in line.strip("│").split("│")]
             for line in console.export_text().splitlines() if line.startswith("│")]  # fmt: skip
    assert cells == [["prompt", "Peru's capital is", "Lima. It", "Oslo"],
                     ["other words", "Peru's seat is", "Lima", "(nothing)"],
                     ["neighbour", "Chile's capital is", "Santiago", "Santiago"]]  # fmt: skip


def test_many_facts_and_runs_of_older_versions_have_no_such_table():
    many = [record(n, ("efficacy", "p", "a", "b")) for n in range(1, 7)]
    old = [{"n_edits": 1, "requests": [{}], "generated": [{"request": "f1", "before": "a", "after": "b"}]}]
    assert len(answers_table(many[:5])) == 1 and answers_table(many) == answers_table(old) == answers_table([]) == []
