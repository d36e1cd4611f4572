"""Writes the study of Gu et al.'s figures: a page, a picture per figure and model, and the numbers as CSV."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from afteredit.analysis.numbers.cell_text import signed
from afteredit.analysis.numbers.method_names import model_in_words, model_name
from afteredit.analysis.pictures.axes import as_png
from afteredit.analysis.read.run import Run, faults_as_markdown
from afteredit.analysis.study.pictures import CURVE, MOST_BANDS, draw
from afteredit.analysis.study.points import points
from afteredit.analysis.study.published import FIGURES, SUCCESS, TASKS, published
from afteredit.analysis.study.verdicts import not_run, verdicts
from afteredit.record.environment import RUN
from afteredit.store.atomic_files import make_folder, written_together
from afteredit.store.errors import BadInput

TITLE = "# Gu et al. (EMNLP 2024), figure by figure"
NOTE = """\
Solid: scored as the paper scored; dashed: the clean tasks; bands: 95 % over examples, of the change since the unedited
model. Dotted with × and +: the published values, read off the figures (± .005). A verdict compares changes at the last
x that both have; single published runs of one setting differ by up to .33.
"""


def write_study(runs: Sequence[Run], out: Path) -> Path:
    """Writes study.md, points.csv, verdicts.csv and the pictures into `out`; returns the page.  Raises BadInput."""
    ours, theirs = points(runs), published()
    if ours.empty:
        raise BadInput(f"none of these runs belongs to a figure of Gu et al.; make some: {RUN} -m "
                       "experiment=gu2024/sequential_rome data=<folder>")  # fmt: skip
    judged = verdicts(ours, theirs)
    lines, page = [TITLE, "", *faults_as_markdown(runs), NOTE], out / "study.md"
    called = {model_name(run): model_in_words(run) for run in runs}
    make_folder(out)
    with written_together(page, TITLE) as write:
        write(out / "points.csv", ours.to_csv(index=False).encode())
        write(out / "verdicts.csv", judged.to_csv(index=False).encode())
        for model in sorted(set(ours["model"])):
            lines += [f"## {called[model]}", ""]
            for figure in FIGURES:
                lines += _figure(figure, model, called[model], ours, theirs, judged,
                                 lambda name, png: write(out / name, png))  # fmt: skip
        write(page, "\n".join(lines).encode())
    return page


def families(ours: pd.DataFrame, theirs: pd.DataFrame) -> dict[str, list[str]]:
    """Returns the methods that share a picture: ROME of both kinds, every other by itself."""
    methods = sorted({*ours["method"], *theirs["method"]})
    grouped: dict[str, list[str]] = {}
    for method in methods:
        grouped.setdefault(method.removesuffix("_published"), []).append(method)
    return grouped


def _figure(figure: str, model: str, called: str, ours: pd.DataFrame, theirs: pd.DataFrame, judged: pd.DataFrame,
            write: Callable[[str, bytes], None]) -> Iterator[str]:  # fmt: skip
    mine = ours[(ours["figure"] == figure) & (ours["model"] == model)]
    published_here = theirs[theirs["figure"] == figure]
    yield from (f"### {FIGURES[figure].title}", "")
    for family, methods in families(mine, published_here).items():
        here, there = (table[table["method"].isin(methods)] for table in (mine, published_here))
        if here.empty:
            yield from (f"{family}: **not run**", "")
            continue
        scorings = sorted(set(here["scoring"]))
        many = len(here[CURVE].drop_duplicates()) > MOST_BANDS  # then each scoring has a picture of its own
        for part in [[scoring] for scoring in scorings] if many else [scorings]:
            name = "-".join(filter(None, (model, figure, family, *(part if many else ())))).replace("/", "_")
            picture = draw(figure, called, here[here["scoring"].isin(part)], there)
            write(f"{name}.png", as_png(picture, 100))
            yield from (f"![{family}: {FIGURES[figure].title}, {model}]({name}.png)", "")
        of_this = (judged["figure"] == figure) & (judged["model"] == model) & judged["method"].isin(methods)
        yield from _table(judged[of_this])
        for scoring in scorings:
            missing = not_run(ours, there, model, scoring)
            if len(missing):
                yield from (f"Not run{f' ({scoring})' if scoring else ''}: {_missing(missing)}.", "")


def _table(judged: pd.DataFrame) -> Iterator[str]:
    if judged.empty:
        return
    yield "| panel | curve | scoring | beside | x | published change | change here, 95 % | distance | verdict |"
    yield "|---|---|---|---|---|---|---|---|---|"
    order = judged["quantity"].map({name: i for i, name in enumerate([*TASKS, *SUCCESS])})
    judged = judged.assign(order=order).sort_values(["order", "scoring"], ascending=[True, False], kind="stable")
    for row in judged.to_dict("records"):
        digits = ",.0f" if row["quantity"] == "manhattan" else ".2f"
        theirs, change, low, high, distance = (
            signed(f"{row[key]:+{digits}}") for key in ("published_change", "change", "low", "high", "distance")
        )
        interval = "" if pd.isna(row["low"]) else f" [{low}, {high}]"
        curve = " ".join([row["method"], *([row["constraint"]] if row["constraint"] != "none" else []),
                          *([f"× {row['batch_size']}"] if row["batch_size"] > 1 else [])])  # fmt: skip
        yield (f"| {row['quantity']} | {curve} | {row['scoring']} | {row['published_model']} | {row['x']} | "
               f"{theirs} | {change}{interval} | {distance} | {row['verdict']} |")  # fmt: skip
    yield ""


def _missing(points: pd.DataFrame) -> str:
    """Returns the curves and x that no run has, each curve once: "memit at 1000, 2000"."""
    texts = []
    for (method, constraint, size), group in points.groupby(["method", "constraint", "batch_size"]):
        name = method + (f" {constraint}" if constraint != "none" else "") + (f" × {size}" if size > 1 else "")
        whole = group.groupby("x")["quantity"].nunique()
        texts.append(f"{name} at {', '.join(f'{x:,}' for x in whole.index)}")
    return "; ".join(texts)
