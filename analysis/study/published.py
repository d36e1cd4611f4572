"""The published figures of Gu et al. (EMNLP 2024): their values, their panels and their x-axes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd

FILE = Path(__file__).resolve().parents[2] / "data" / "gu2024.csv"  # read off the figures; ± .005
TASKS = ("reasoning", "nli", "open_qa", "closed_qa", "dialogue", "summarization", "ner", "sentiment")
SUCCESS = {"reliability": "efficacy", "generalisation": "paraphrase", "locality": "neighbourhood"}  # by our names
MODELS = {"gpt2-xl": "GPT-2 XL", "llama-7b": "LLaMA-1 7B"}
KEY = ["figure", "method", "constraint", "batch_size", "quantity"]  # what a curve of a figure is known by


@dataclass(frozen=True)
class Figure:
    """Holds how one published figure is arranged: what is shown, and what its x-axis counts."""

    title: str
    x: str
    quantities: tuple[str, ...]


FIGURES = {
    "sequential": Figure("Sequential editing", "edits", TASKS),
    "batch": Figure("Batch editing: one batch on the unedited model", "facts in the batch", TASKS),
    "batch_sequential": Figure("Batch-sequential editing", "rounds", TASKS),
    "rect_editing": Figure("RECT: success of single edits", "edits", tuple(SUCCESS)),
    "rect_general": Figure("RECT: general abilities", "edits",
                           ("summarization", "open_qa", "closed_qa", "sentiment")),
    "change_statistics": Figure("How far W moved", "edits", ("manhattan", "moved_0.077", "moved_0.171")),
}  # fmt: skip


@cache
def published() -> pd.DataFrame:
    """Returns one row per published value: figure, model, method, constraint, batch_size, x, quantity, value, source.

    `source` is the picture's file in the authors' repository.  In the batch figure, where the x-axis is the batch
    size, `batch_size` is 0, so that its points are one curve.
    """
    table = pd.read_csv(FILE, dtype={"value": float})
    table.loc[table["figure"] == "batch", "batch_size"] = 0
    return table


def published_as(constraint: str) -> str:
    """Returns the published constraint that one of ours stands beside: PCA as shipped stands beside PCA too."""
    return constraint.replace("pca_published", "pca")
