"""What the model said to the same question at 0, k, 2k, … edits; rows that were right and are wrong now come first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pandas as pd
from rich.table import Table

from afteredit.analysis.read.run import Run

LOST = "right → wrong"
N_ANSWERS, LENGTH = 3, 100  # rows whose answers are shown, characters of a text


def same_questions(run: Run, most: int) -> pd.DataFrame:
    """Returns a table of texts, one line per row of an ability: ability, row, change, question, wanted, `after n`.

    `most`: the number of checkpoints to show, the first and the last among them.  With setting=single the change is
    that of the mean over the models.  Empty where the run kept no answers, as older versions did.
    """
    columns = {"answer", "choice"} & set(run.samples)
    if not columns or "doc_id" not in run.samples:
        return pd.DataFrame()
    said = run.samples[(run.samples["kind"] == "ability") & run.samples[sorted(columns)].notna().any(axis=1)]
    measured = sorted(set(said["n_edits"]))
    shown = (
        measured if len(measured) <= most else [measured[i * (len(measured) - 1) // (most - 1)] for i in range(most)]
    )
    rows: dict[tuple[str, int], dict[int, Any]] = {}
    for example in said.to_dict("records"):
        rows.setdefault((example["name"], int(example["doc_id"])), {})[int(example["n_edits"])] = example
    lines = [_line(*row, by_edits, shown, mean=run.single)
             for row, by_edits in rows.items() if 0 in by_edits and len(by_edits) > 1]  # fmt: skip
    # of one ability after the other, so that those at the top are not all of the first
    lines.sort(key=lambda line: (line["change"] != LOST, -line["fall"]))
    seen: dict[tuple[Any, ...], int] = {}
    for line in lines:
        place = line["change"] == LOST, line["fall"], line["ability"]
        line["turn"] = seen[place] = seen.get(place, 0) + 1
    lines.sort(key=lambda line: (line["change"] != LOST, -line["fall"], line["turn"]))
    return pd.DataFrame(lines).drop(columns=["fall", "turn"], errors="ignore")


def same_questions_table(said: pd.DataFrame) -> Table:
    """Returns those of the first rows of `same_questions` that lost something, or one, with their answers in lines."""
    n_lost = int((said["change"] == LOST).sum())
    table = Table(title=f"what the model said ({n_lost} of {len(said)} rows were right and are wrong now)")
    table.add_column("row")
    table.add_column("edits", justify="right")
    table.add_column("question and answers", min_width=50)
    lost = said[said["change"].isin([LOST, "less"])]
    for line in (lost if len(lost) else said[:1]).head(N_ANSWERS).map(shortened, length=LENGTH).to_dict("records"):
        table.add_row(f"{line['ability']} {line['row']}", "", line["question"])
        table.add_row("", "wanted", line["wanted"])
        for name, answer in line.items():
            if str(name).startswith("after "):
                table.add_row("", str(name).removeprefix("after "), answer)
        table.add_section()
    return table


def _line(name: str, doc_id: int, by_edits: dict[int, Any], shown: Sequence[int], *, mean: bool) -> dict[str, Any]:
    first = by_edits[0]
    after = [_score(by_edits[n]) for n in sorted(by_edits) if n > 0]
    before, now = _score(first), sum(after) / len(after) if mean else after[-1]
    if (before < 1) == (now < 1):
        change = "same" if before == now else "less" if before > now else "more"
    else:
        change = LOST if before >= 1 else "wrong → right"
    choices = json.loads(first["choices"]) if isinstance(first.get("choices"), str) else None
    return {"ability": name, "row": str(doc_id), "change": change, "fall": before - now,
            "question": _text(first.get("question")), "wanted": _text(first.get("wanted")),
            **{f"after {n}": _said(by_edits[n], choices) if n in by_edits else "" for n in shown}}  # fmt: skip


def _score(example: dict[str, Any]) -> float:
    """Returns the share that is right; all of it where nothing was wanted and nothing said."""
    return float(example["numerator"] / example["denominator"]) if example["denominator"] else 1.0


def _said(example: dict[str, Any], choices: Sequence[str] | None) -> str:
    """Returns ✓, ✗ or the score, and the answer; the number of a choice, from 1, where the choices are not known."""
    score = _score(example)
    mark = "✓" if score >= 1 else "✗" if score <= 0 else f"{score:.2f}"
    choice = example.get("choice")
    if choice is None or pd.isna(choice):
        answer = _text(example.get("answer"))
    elif choices and 0 <= choice < len(choices):
        answer = choices[int(choice)]
    else:
        answer = f"choice {choice + 1:.0f}"
    return f"{mark} {answer.strip() or '(nothing)'}"


def _text(value: Any) -> str:
    """Returns "" for a text that is not there: a copy may leave out the questions of other people's rows."""
    return value if isinstance(value, str) else ""


def shortened(text: str, length: int) -> str:
    """Returns the text on one line, without its middle where it is longer: questions stand at the end."""
    line = " ".join(text.split())
    head = length // 3
    return line if len(line) <= length else f"{line[:head]} … {line[head + 3 - length :]}"
