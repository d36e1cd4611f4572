"""What a run directory adds to what was measured."""

from __future__ import annotations

import pytest

from afteredit.evaluate.measure import Checkpoint
from afteredit.record.environment import EMPTY
from afteredit.record.run_directory import RunDirectory
from afteredit.record.settings import OnCollapse, RecordSettings, Resume, When
from afteredit.store.checked_lines import write_checked

SETTINGS = RecordSettings(n_edits=1, eval_every=1, eval_at=[], measure=When.now, runs="runs", resume=Resume.same,
                          on_collapse=OnCollapse.stop, collapse_perplexity=100.0)  # fmt: skip


def measured(scores: dict[str, float]) -> Checkpoint:
    """Each ability has eighty rows, so many of them right."""
    samples = [
        {"kind": "ability", "name": name, "numerator": float(i < 80 * score), "denominator": 1.0}
        for name, score in scores.items()
        for i in range(80)
    ]
    return Checkpoint({"drift/perplexity": 20.0, **{f"ability/{n}": score for n, score in scores.items()}}, samples)


@pytest.mark.parametrize(
    ("last", "retained"),
    [
        ({"nli": 0.7, "paper_nli": 0.0}, 0.5),  # (.7 − .5) / (.9 − .5); nothing is left of the paper's
        ({"paper_nli": 0.2, "paper_ner": 0.4}, 0.375),  # (.2 / .8 + .4 / .8) / 2
    ],
)
def test_retained_is_of_one_scoring(tmp_path, last, retained):
    chance = {"nli": 0.5, "paper_nli": 0.0, "paper_ner": 0.0}
    first = {name: {"nli": 0.9}.get(name, 0.8) for name in last}
    measurement = {"tasks": {name: {"chance": chance[name]} for name in last}, "view": None}
    write_checked(tmp_path / "environment.json", EMPTY)
    with RunDirectory(tmp_path, SETTINGS, measurement, {"code": "c", "packages": {}}, single=False) as run:
        for n_edits, scores in enumerate((first, last)):
            run.add_checkpoint(n_edits, "sha", measured(scores))
        assert run.results.row(0)["measurable"] == list(last)
        assert [row["ability/retained"] for row in run.results.rows] == [1.0, pytest.approx(retained)]
