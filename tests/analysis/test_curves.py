"""The picture of a run."""

from __future__ import annotations

from matplotlib import image
from matplotlib import pyplot as plt

from afteredit.analysis.curves import draw_curves

CHANCE = {"nli": 0.5, "reasoning": 0.0, "absent": 0.25}


def rows() -> list[dict]:
    first = {"n_edits": 0, "ability/nli": 0.8, "ability/reasoning": 0.1, "ability/nli/gold_nll": 0.5,
             "drift/perplexity": 20.0, "measurable": ["nli"]}  # fmt: skip
    second = {"n_edits": 5, "ability/nli": 0.7, "editing/immediate/prob/efficacy": 1.0, "drift/perplexity": 1e6}
    return [first, second, {"n_edits": 10, "drift/perplexity": 1e300, "editing/retained/prob/efficacy": 0.5}]


def test_curves_are_drawn_though_rows_lack_keys(tmp_path):
    path = draw_curves(rows(), CHANCE, tmp_path / "curves.png", "a run")
    height, width, _ = image.imread(path).shape
    assert width >= 1000 and height >= 700 and path.stat().st_size > 20_000
    assert not plt.get_fignums()  # none is left open


def test_a_single_row_without_abilities_is_drawn_too(tmp_path):
    path = draw_curves([{"n_edits": 0, "drift/perplexity": 20.0}], {}, tmp_path / "curves.png", "a run")
    assert path.stat().st_size > 10_000


def test_what_was_measured_is_in_the_picture(tmp_path):
    empty = [{"n_edits": row["n_edits"], "measurable": []} for row in rows()]
    drawn = draw_curves(rows(), CHANCE, tmp_path / "a.png", "a run")
    bare = draw_curves(empty, CHANCE, tmp_path / "b.png", "a run")
    assert (image.imread(drawn) != image.imread(bare)).mean() > 0.005
