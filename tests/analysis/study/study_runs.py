"""Made-up runs of Gu et al.'s figures, and the published values as they stand in the file."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from afteredit.tests.analysis.conftest import checked, write_run

N = 40
TASKS = {name: {"title": name, "chance": 0.0} for name in ("paper_sentiment", "sentiment", "paper_ner")}
PROBES = {"reliability": "efficacy", "generalisation": "paraphrase", "locality": "neighbourhood"}
CONSTRAINTS = {"rect": "rect.Rect", "random": "random_entries.RandomEntries", "pca": "pca.Pca",
               "pca_published": "pca_published.PcaPublished"}  # fmt: skip
with open(Path(__file__).resolve().parents[3] / "data" / "gu2024.csv", encoding="utf-8", newline="") as file:
    PUBLISHED = list(csv.DictReader(file))


def theirs(x: int | None = None, **wanted: str) -> float | dict[int, float]:
    """Returns the published value there, or all of a curve by x."""
    values = {int(row["x"]): float(row["value"]) for row in PUBLISHED
              if all(row[key] == value for key, value in wanted.items())}  # fmt: skip
    return values if x is None else values[x]


def right(share: float) -> list[float]:
    """The scores of N examples of which this share is right."""
    return [1.0] * round(share * N) + [0.0] * (N - round(share * N))


def rome(runs, seed=0, last=0.1, measurable=tuple(TASKS), environment=None, digest="aaaaaaaa", order=None, **config):
    scores = {0: {"paper_sentiment": right(0.6), "sentiment": right(0.8), "paper_ner": right(0.5)},
              5: {"paper_sentiment": right(0.5), "sentiment": right(0.7), "paper_ner": right(0.5)},
              20: {"paper_sentiment": right(last), "sentiment": right(0.5), "paper_ner": right(0.5)}}  # fmt: skip
    config |= {"edits": {"name": "facts", "order": order}} if order else {}
    return write_run(runs, "rome_published", seed, scores, measurable=measurable, tasks=TASKS, config=config,
                     environment=environment, digest=digest)  # fmt: skip


def single(runs: Path, constraint: str, success: Mapping[str, Sequence[float]], *, method: str = "rome_published",
           facts: Sequence[str] = (), examples: bool = True) -> Path:  # fmt: skip
    """A run of single edits: `success` holds each fact's score by measure; `constraint` is none or as in rect_0.4."""
    kind, _, keep = constraint.rpartition("_")
    config = {"batch_size": 1, "setting": "single"}
    if kind:
        config["constraint"] = {"_target_": f"afteredit.edit.constraints.{CONSTRAINTS[kind]}", "keep": float(keep)}
    n = len(success["reliability"])
    folder = write_run(runs, method, sum(map(ord, constraint)), {0: {}, n: {}}, measurable=(), config=config)
    lines = (folder / "results-aaaaaaaa.jsonl").read_text().splitlines()
    means = {f"editing/immediate/forced/{PROBES[name]}": sum(scores) / n for name, scores in success.items()}
    rows = json.loads(lines[0]), {**json.loads(lines[1]), **means, "editing/immediate/n_edits": n}
    (folder / "results-aaaaaaaa.jsonl").write_text("".join(map(checked, rows)))
    kept = [{"n_edits": n, "kind": "immediate", "name": f"forced/{PROBES[name]}", "request": fact, "score": score}
            for name, scores in success.items()
            for fact, score in zip(facts or [f"f{i}" for i in range(n)], scores, strict=True)]  # fmt: skip
    (folder / "samples" / f"aaaaaaaa-{n:06d}.parquet").unlink()
    if examples:
        pd.DataFrame(kept).to_parquet(folder / "samples" / f"aaaaaaaa-{n:06d}.parquet")
    return folder


def moved(runs: Path, distances: Mapping[int, float]) -> Path:
    """A run that says how far W is from the unedited matrix after so many edits."""
    folder = write_run(runs, "rome_published", 9, {n: {} for n in (0, *distances)}, measurable=())
    rows = map(json.loads, (folder / "results-aaaaaaaa.jsonl").read_text().splitlines())
    text = "".join(checked({**row, "drift/1/manhattan": distances.get(row["n_edits"], 0.0)}) for row in rows)
    (folder / "results-aaaaaaaa.jsonl").write_text(text)
    return folder


def only(table: pd.DataFrame, **values) -> pd.Series:
    for key, value in values.items():
        table = table[table[key] == value]
    assert len(table) == 1, table
    return table.iloc[0]
