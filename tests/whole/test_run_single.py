"""setting=single through `run.main([...])` on a tiny Llama: no model is built on another, so none condemns another."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from afteredit.edit.methods.rome import Rome
from afteredit.evaluate import measure
from afteredit.evaluate.metrics.editing_success import means
from afteredit.record.tracking.tracker import Tracker
from afteredit.run import main
from afteredit.store.checked_lines import Lines

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory, save_tiny_llama):
    """One tiny model, one text and one cache for all runs here."""
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny_llama(folder / "model")
    (folder / "text.txt").write_text("The old town has a market, and people come to buy fish and bread.\n" * 30)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AFTEREDIT_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture
def go(place, few_facts, tmp_path):
    """go("n_edits=4", …) -> the one run directory in tmp_path/runs."""

    def run(*overrides: str, rc: int = 0) -> Path:
        fixed = ("model=hf", f"model.source={place}/model", f"method.second_moment_text={place}/text.txt",
                 "method.tokens_per_key_dim=2", "method.layer=1", "method.value_steps=4", "method.contexts_short=2",
                 "method.contexts_long=0", "limit=3", "held_out_tokens=64", "tracker=none", "device=cpu",
                 "setting=single", few_facts)  # fmt: skip
        assert main([*fixed, *overrides, f"runs={tmp_path}/runs"]) == rc
        (folder,) = (tmp_path / "runs").iterdir()
        return folder

    return run


@pytest.fixture
def second_is_nan(monkeypatch):
    """The update of the second fact holds NaN."""
    update, second = Rome.update, json.loads((ROOT / "data" / "facts.jsonl").read_text().splitlines()[1])["id"]

    def broken(self, lm, requests, prepared, state):
        made = update(self, lm, requests, prepared, state)
        if requests[0].id != second:
            return made
        bad = {name: replace(change, left_Dr=change.left_Dr * float("nan")) for name, change in made.changes.items()}
        return replace(made, changes=bad)

    monkeypatch.setattr(Rome, "update", broken)


def rows(folder: Path) -> list[dict]:
    (path,) = folder.glob("results-*.jsonl")
    return Lines(path).records


def test_nan_in_one_update_stops_no_other_edit(go, second_is_nan, capsys):
    command = ("n_edits=4", "eval_every=1", "task=none", "on_collapse=stop")
    folder = go(*command)
    assert [row["n_edits"] for row in rows(folder)] == [0, 1, 2, 3, 4]
    unedited, first, second, *others = (row["weights_sha256"] for row in rows(folder))
    assert second == unedited and unedited not in (first, *others)
    capsys.readouterr()
    assert go(*command) == folder
    said = " ".join(capsys.readouterr().out.split())
    assert "finished already: 4 edits" in said and "collapsed at" not in said


def test_the_end_of_a_run_is_a_mean_over_models_here_and_in_its_summary(go, second_is_nan, monkeypatch, capsys):
    told = []
    monkeypatch.setattr(Tracker, "finish", lambda self, summary, records, said: told.append(summary))
    folder = go("n_edits=4", "eval_every=2", "task=[sentiment]")
    summary, (_, *models) = told[0], rows(folder)
    for key in ("ability/sentiment", "ability/retained", "editing/retained/prob/neighbourhood", "drift/perplexity"):
        if key in models[0]:
            assert summary[f"summary/{key}_mean"] == pytest.approx(sum(row[key] for row in models) / 2)
    (path,) = folder.glob("immediate-*.jsonl")
    immediate = means([sample for row in Lines(path).records for sample in row["immediate"]], "editing/immediate")
    assert {key: summary[f"summary/{key}_mean"] for key in immediate} == pytest.approx(immediate)
    assert (summary["summary/models"], summary["summary/collapsed_models"]) == (2, 1)
    assert not [key for key in summary if "area" in key or "until" in key or key == "summary/collapse"]
    said = " ".join(capsys.readouterr().out.split())
    assert "mean over the 2 models measured" in said and "1 of 2 models collapsed" in said
    assert "immediate of 4 edits" in said and "after 4 edits (" not in said


def test_one_models_perplexity_stops_no_other_edit(go, monkeypatch, capsys):
    perplexities = iter([40.0, 401.0, 41.0, 43.0])
    monkeypatch.setattr(measure, "drift", lambda *_: {"drift/perplexity": next(perplexities)})
    folder = go("n_edits=3", "eval_every=1", "task=none", "on_collapse=stop", "collapse_perplexity=10")
    assert [row["drift/perplexity"] for row in rows(folder)] == [40.0, 401.0, 41.0, 43.0]
    assert "collapsed at" not in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("stopped_at", [2, 5])
def test_a_run_that_is_stopped_within_a_group_ends_in_the_same_bits(go, tmp_path, monkeypatch, stopped_at):
    """Groups of two in windows of four: what was optimised ahead and not written yet is optimised again, in company."""
    command, update, seen = ("n_edits=6", "eval_every=1", "task=none", "speed.together=1"), Rome.update, []
    straight = rows(go(*command))
    (tmp_path / "runs").rename(tmp_path / "straight")

    def interrupting(self, lm, requests, prepared, state):
        seen.append(requests[0].id)
        if len(seen) == stopped_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(self, lm, requests, prepared, state)

    with monkeypatch.context() as patch:
        patch.setattr(Rome, "update", interrupting)
        folder = go(*command, rc=128 + signal.SIGTERM)
    assert len(Lines(folder / "edits.jsonl").records) == stopped_at
    resumed = rows(go(*command))
    for key in ("n_edits", "weights_sha256", "drift/perplexity", "editing/immediate/prob/efficacy"):
        assert [row.get(key) for row in resumed] == [row.get(key) for row in straight]
    assert len({row["weights_sha256"] for row in resumed}) == 7
