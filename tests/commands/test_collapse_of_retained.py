"""The search for the edit by which half of `ability/retained` is lost finds what a look at every edit finds."""

from __future__ import annotations

import pytest

from afteredit.evaluate.measure import Checkpoint, Measure
from afteredit.run import main
from afteredit.store.checked_lines import Lines

N_EDITS = 9
TASKS = {"sentiment": 0.5, "nli": 0.5, "closed_qa": 0.5}  # with their chance levels
N_ROWS = 40


@pytest.fixture
def fixed(tmp_path, save_tiny_llama, monkeypatch) -> list[str]:
    monkeypatch.setenv("COLUMNS", "500")
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path / "cache"))
    save_tiny_llama(tmp_path / "model")
    return [f"model.source={tmp_path}/model", "limit=2", "held_out_tokens=32", "device=cpu"]


@pytest.fixture
def run(fixed, tmp_path):
    """A run of N_EDITS edits that measures no ability."""
    edits = ["method=ft", "method.layers=[0]", "method.steps=1", f"n_edits={N_EDITS}", f"eval_every={N_EDITS}"]
    assert main([*fixed, *edits, "model=hf", "tracker=none", "task=none", f"runs={tmp_path}/runs"]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    return folder


def scores(lost_at: int, n: int) -> dict[str, float]:
    """nli stands at chance; the others fall together at `lost_at`, by half in the mean: one by .2, the other by .8."""
    lost = n >= lost_at
    return {"sentiment": 0.9 - 0.08 * lost, "nli": 0.5, "closed_qa": 1.0 - 0.4 * lost}


@pytest.fixture
def measured(monkeypatch):
    """measured(lost_at) -> the numbers of edits that are measured from then on; scores are made up."""

    def begin(lost_at: int) -> list[int]:
        looked_at: list[int] = []

        def checkpoint(self, done, *, last):
            looked_at.append(len(done))
            by_task = scores(lost_at, len(done))
            row = {f"ability/{name}": score for name, score in by_task.items()}
            samples = [{"kind": "ability", "name": name, "numerator": float(i < round(N_ROWS * score)),
                        "denominator": 1.0} for name, score in by_task.items() for i in range(N_ROWS)]  # fmt: skip
            return Checkpoint({**row, "drift/perplexity": 10.0, "time/eval_s": 0.0}, samples)

        monkeypatch.setattr(Measure, "checkpoint", checkpoint)
        return looked_at

    return begin


def out(capsys) -> str:
    return " ".join(capsys.readouterr().out.split())


def first_with_half_lost(lost_at: int) -> int | None:
    """Looks at every edit, in order: the mean over the two abilities that stand above chance, by hand."""
    for n in range(N_EDITS + 1):
        now = scores(lost_at, n)
        if ((now["sentiment"] - 0.5) / (0.9 - 0.5) + (now["closed_qa"] - 0.5) / (1.0 - 0.5)) / 2 <= 0.5:
            return n
    return None


@pytest.mark.parametrize("lost_at", [1, 5, N_EDITS])
def test_the_edit_found_is_that_of_a_linear_scan(run, fixed, measured, capsys, lost_at):
    looked_at = measured(lost_at)
    task = f"task=[{','.join(TASKS)}]"
    assert main([*fixed, f"replay.run={run}", "replay.collapse=retained", task]) == 0
    expected = first_with_half_lost(lost_at)
    said = out(capsys)
    assert expected == lost_at
    assert f"1.00 of retained is left after {expected - 1} edits, 0.50 of retained is left after {expected}" in said
    assert {0, expected - 1, expected} <= set(looked_at)
    assert len(looked_at) == len(set(looked_at)) < N_EDITS + 1
    (path,) = (path for path in run.glob("results-*.jsonl") if len(Lines(path).records) == len(looked_at))
    assert all({f"ability/{name}" for name in TASKS} < row.keys() for row in Lines(path).records)


def test_where_less_than_half_is_lost_none_is_found(run, fixed, measured, capsys):
    measured(N_EDITS + 1)
    assert main([*fixed, f"replay.run={run}", "replay.collapse=retained", "task=[sentiment,closed_qa]"]) == 0
    assert first_with_half_lost(N_EDITS + 1) is None
    assert f"no crossing found: 1.00 of retained is left after {N_EDITS} edits" in " ".join(
        capsys.readouterr().out.split()
    )


@pytest.mark.parametrize(
    ("task", "named"),
    [("none", ["replay.collapse=retained", "(none)", "task=[nli,sentiment]"]),
     ("[nli]", ["replay.collapse=retained", "above chance on none", "nli", "limit=…"])],
)  # fmt: skip
def test_where_nothing_is_retained_that_is_said(run, fixed, measured, capsys, task, named):
    measured(1)
    assert main([*fixed, f"replay.run={run}", "replay.collapse=retained", f"task={task}"]) == 2
    error = capsys.readouterr().err
    assert not [text for text in named if text not in error]
