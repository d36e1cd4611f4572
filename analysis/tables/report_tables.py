"""The report's tables: what each method costs, which drops are real, whether perplexity warned in time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from afteredit.analysis.numbers import statistics
from afteredit.analysis.numbers.comparison import Comparison, common_checkpoints, mean_over, number
from afteredit.analysis.pictures.heat_and_drift import WARNING, drift
from afteredit.analysis.pictures.report_style import signed
from afteredit.analysis.read.run_folders import Run, paired

EACH = 4  # runs whose own numbers are given; of more, the median
LOST = ("edits_until_10_percent_lost", "edits_until_50_percent_lost")


def methods_table(x: Comparison) -> pd.DataFrame:
    """One row per method, as text: mean over runs, in brackets the smallest and largest."""
    rows = []
    for label, runs in x.runs.items():
        own = x.summaries[(x.summaries["method"] == label) & (x.summaries["ability"] == "retained")]
        ratio = [drift(run, run.rows[-1], "perplexity") for run in runs]
        rows.append({
            "method": label, "runs": str(len(runs)), **(_over_models(own) if x.single else _over_edits(runs, own)),
            "perplexity ÷ unedited": _spread(ratio, digits=2),
            **(_success(runs, "immediate") if x.single else _success(runs, "retained")),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _over_edits(runs: Sequence[Run], own: pd.DataFrame) -> dict[str, str]:
    return {
        "edits": _each([str(run.n_edits) for run in runs]),
        "ability retained at the end (%)": _spread([100 * left for left in own["left"]]),
        "area under retention (%)": _spread([100 * area for area in own["area"]]),
        "edits until 10 % lost": until_text(own[LOST[0]], own["n_edits"]),
        "edits until 50 % lost": until_text(own[LOST[1]], own["n_edits"]),
        "collapse at": until_text([run.collapsed_at for run in runs], own["n_edits"]),
    }


def _over_models(own: pd.DataFrame) -> dict[str, str]:
    """Of setting=single: means over models, none of which is built on another."""
    return {
        "edits in each model": _each([str(n) for n in own["n_edits"]]),
        "models": _each([str(n) for n in own["models"]]),
        "ability retained, mean over models (%)": _spread([100 * left for left in own["left"]]),
        "of the worst model (%)": _spread([100 * left for left in own["left_min"]]),
        "models collapsed": _each([f"{k} of {n}" for k, n in zip(own["collapsed"], own["models"], strict=True)]),
    }


def _success(runs: Sequence[Run], when: str) -> dict[str, str]:
    key = f"editing/{when}/generated/efficacy"
    title = {"immediate": "edits successful, generated (%)", "retained": "edits retained, generated (%)"}[when]
    return {title: _spread([100 * run.rows[-1].get(key, math.nan) for run in runs])}


def drops(x: Comparison) -> pd.DataFrame:
    """Numbers per method and ability at the last checkpoint that all the method's runs have.

    `p` is of the paired test; `p_holm` corrects it for every test in this table.  Both are NaN where the ability is not
    measurable or no examples were kept.  In setting=single `after` is the mean over models, and an example's score its
    mean over them (of a ratio's parts: interval and test are the pooled score's).
    """
    rows = []
    for label, runs in x.runs.items():
        n_edits = common_checkpoints(runs)[-1]
        if n_edits == 0:
            continue
        for name in x.first.abilities:
            key = f"ability/{name}"
            point = x.curves[
                (x.curves["method"] == label) & (x.curves["n_edits"] == n_edits) & (x.curves["curve"] == key)
            ]
            if point.empty:
                continue
            pairs = paired(runs, name, n_edits) if name in x.measurable else None
            own = x.summaries[(x.summaries["method"] == label) & (x.summaries["ability"] == name)]
            rows.append({
                "method": label, "ability": name, "n_edits": n_edits, "n_runs": len(runs),
                "n_examples": pairs[0].shape[-1] if pairs else None, "measurable": name in x.measurable,
                "before": _mean(runs, 0, key), "after": _mean(runs, n_edits, key),
                **point.iloc[0][["value", "low", "high"]].to_dict(),
                "p": statistics.p_value(*pairs) if pairs else math.nan,
                **(_scores(runs, key) if x.single else _losses(own)),
                "unparseable_before": _mean(runs, 0, f"{key}/unparseable"),
                "unparseable_after": _mean(runs, n_edits, f"{key}/unparseable"),
            })  # fmt: skip
    table = pd.DataFrame(rows)
    if len(table):
        tested = table["p"].notna()
        table.loc[tested, "p_holm"] = statistics.holm(table.loc[tested, "p"].tolist())
    return table


def _losses(own: pd.DataFrame) -> dict[str, Any]:
    return {"area": own["area"].mean() if len(own) else math.nan,
            **{lost: until_text(own[lost], own["n_edits"]) for lost in LOST}}  # fmt: skip


def _scores(runs: Sequence[Run], key: str) -> dict[str, Any]:
    scores = [row[key] for run in runs for row in run.models if key in row]
    return {"models": len(scores), "lowest": min(scores), "highest": max(scores)}


def abilities_table(x: Comparison, numbers: pd.DataFrame) -> pd.DataFrame:
    """`drops` as text."""
    rows = []
    for row in numbers.to_dict("records"):
        unread = [row["unparseable_before"], row["unparseable_after"]]
        rows.append({
            "method": row["method"],
            "ability": x.ability_title(row["ability"]) + ("" if row["measurable"] else " (not measurable)"),
            "edits": str(row["n_edits"]),
            "unedited (%)": f"{100 * row['before']:.1f}", "edited (%)": f"{100 * row['after']:.1f}",
            "change (points), 95 % interval": _change_text(row),
            "p, Holm": _p_text(row.get("p_holm", math.nan)),
            **(_scores_text(row) if x.single else _losses_text(row)),
            "unparseable (%)": "" if any(map(math.isnan, unread)) else " → ".join(f"{100 * u:.1f}" for u in unread),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _losses_text(row: dict[str, Any]) -> dict[str, str]:
    return {"area under retention (%)": "" if math.isnan(row["area"]) else f"{100 * row['area']:.1f}",
            "edits until 10 % lost": row[LOST[0]], "edits until 50 % lost": row[LOST[1]]}  # fmt: skip


def _scores_text(row: dict[str, Any]) -> dict[str, str]:
    return {"models": str(row["models"]),
            "lowest–highest model (%)": f"{100 * row['lowest']:.1f}–{100 * row['highest']:.1f}"}  # fmt: skip


def warnings_table(x: Comparison) -> pd.DataFrame:
    """Per run: the checkpoint at which perplexity was first past the warning, and that at which 10 % was first lost.
    Empty in setting=single, where nothing comes before anything."""
    rows = []
    for label, runs in x.runs.items() if not x.single else ():
        for run in runs:
            own = x.summaries[(x.summaries["run"] == run.name) & (x.summaries["ability"] == "retained")]
            lost = own[LOST[0]].iloc[0]
            warned = next((row["n_edits"] for row in run.rows if not drift(run, row, "perplexity") <= WARNING), None)
            rows.append({
                "method": label, "seed": str(run.seed),
                f"perplexity +{100 * (WARNING - 1):.0f} % at": until_text([warned], [run.n_edits]),
                "10 % of ability lost at": until_text([lost], [run.n_edits]),
                "did it warn?": verdict(warned, None if math.isnan(lost) else lost),
            })  # fmt: skip
    return pd.DataFrame(rows)


def verdict(warned: float | None, lost: float | None) -> str:
    if lost is None:
        return "nothing to warn of" if warned is None else "false alarm so far"
    if warned is None:
        return "no warning"
    return "in time" if warned < lost else "at the same checkpoint" if warned == lost else "too late"


def until_text(reached: Sequence[float | None] | pd.Series, last: Sequence[float] | pd.Series) -> str:
    """Per run the edits until it happened, `> n` where it had not by the last edit (right-censored); of many runs the
    Kaplan–Meier median."""
    known = [None if at is None or math.isnan(at) else at for at in reached]
    ends = list(last)
    if len(known) <= EACH:
        return _each([f"> {end:.0f}" if at is None else f"{at:.0f}" for at, end in zip(known, ends, strict=True)])
    median = statistics.median_until(known, ends)
    never = sum(at is None for at in known)
    text = f"median > {max(ends):.0f}" if median is None else f"median {median:.0f}"
    return f"{text} (not reached in {never} of {len(known)})" if never else text


def _each(texts: Sequence[str]) -> str:
    return texts[0] if len(set(texts)) == 1 else " · ".join(texts) if len(texts) <= EACH else f"{texts[0]} …"


def _mean(runs: Sequence[Run], n_edits: int, key: str) -> float:
    return mean_over(runs, n_edits, number(key))


def _spread(values: Sequence[float], digits: int = 1) -> str:
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return ""
    mean = f"{sum(known) / len(known):.{digits}f}"
    if len(known) == 1 or max(known) == min(known):
        return mean
    return f"{mean} ({min(known):.{digits}f}–{max(known):.{digits}f})"


def _change_text(row: dict[str, Any]) -> str:
    value, low, high = (signed(f"{100 * row[key]:+.1f}") for key in ("value", "low", "high"))
    return value if math.isnan(row["low"]) else f"{value} [{low}, {high}]"


def _p_text(p: float) -> str:
    if math.isnan(p):
        return ""
    return ("< 0.001" if p < 0.001 else f"{p:.3f}") + (" *" if p < 0.05 else "")
