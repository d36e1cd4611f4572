"""Writes the study of Gu et al.'s figures: a page, a picture per figure and model, and the numbers as CSV."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from afteredit.analysis.numbers.method_names import model_in_words, model_name
from afteredit.analysis.pictures.axes import as_png
from afteredit.analysis.read.run import Run, faults_as_markdown
from afteredit.analysis.study.curves import MOST_BANDS
from afteredit.analysis.study.missing import not_run_in_words
from afteredit.analysis.study.pictures import draw
from afteredit.analysis.study.points import points
from afteredit.analysis.study.published import FIGURES, published
from afteredit.analysis.study.styles import CURVE
from afteredit.analysis.study.verdict_table import verdict_table
from afteredit.analysis.study.verdicts import LEAST, MARGIN, verdicts
from afteredit.record.environment import RUN
from afteredit.store.atomic_files import make_folder, written_together
from afteredit.store.errors import BadInput

TITLE = "# Gu et al. (EMNLP 2024), figure by figure"
NOTE = f"""\
Solid: scored as the paper scored; dashed: the clean tasks; bands: 95 % over examples, of the change since the unedited
model. Thin: other orders of the edit set, so that other facts come first. Dotted with × and +: the published values,
read off the figures (± .005). Lines in bars: 95 % over facts. What the code of Gu et al. writes as PCA
(`pca_published`) stands beside their PCA, as a true PCA does.

A verdict compares changes at the last x that both have, ours in file order; single published runs of one setting differ
by up to .33. A change of editing success is against the same edits with nothing left out, its interval over facts, each
compared with itself. A published change under {LEAST:.2f} is called none; it is "seen: no effect" where our whole
interval lies within ± {MARGIN:.2f}, and "cannot be told" where a larger effect may hide in it. A larger one is "not
seen" where our interval holds 0 and not the published change, and "cannot be told" where it holds both. "Unparseable"
is the share of answers that could not be read, before and after the edits; they count as wrong.

`points.csv` has every point of the pictures, with the runs and rows that it comes from: in each of `results` the rows
after `n_edits` edits hold it under `key`.
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
            missing = not_run_in_words(here, there, model, part)
            picture = draw(figure, called, here[here["scoring"].isin(part)], there, missing)
            write(f"{name}.png", as_png(picture, 100))
            yield from (f"![{family}: {FIGURES[figure].title}, {model}]({name}.png)", "")
        of_this = (judged["figure"] == figure) & (judged["model"] == model) & judged["method"].isin(methods)
        yield from verdict_table(judged[of_this])
        for line in not_run_in_words(here, there, model, scorings):
            yield from (f"{line[0].upper()}{line[1:]}.", "")
