"""By what a run was made, also where its environment.json comes from elsewhere."""

from __future__ import annotations

import pytest

from afteredit.analysis.read.made import Made, made
from afteredit.analysis.read.run_folders import read


def test_a_run_says_by_what_it_was_made_and_the_wandb_run_of_its_evaluation(tmp_path, made_run):
    wandb = [{"results": "aaaaaaaa", "url": ""}, {"results": "aaaaaaaa", "url": "https://w/1"},
             {"results": "bbbbbbbb", "url": "https://w/2"}]  # fmt: skip
    stored = {"commands": ["python run.py", "python run.py n_edits=9"], "commit": "abc", "began": "2026-11-29T21:43:05",
              "wandb": wandb}  # fmt: skip
    made_run(tmp_path, "rome", 1, {0: {"nli": [1.0]}}, environment=stored)
    (run,) = read([tmp_path])
    assert run.made == Made(stored["commands"], "abc", "2026-11-29T21:43:05", "https://w/1")


@pytest.mark.parametrize("strange", [None, 5, "x", {"a": 1}, [None, 5, {"url": 3, "results": "aaaaaaaa"}]])
def test_what_is_no_text_is_left_out(strange):
    stored = dict.fromkeys(("commands", "commit", "began", "wandb"), strange)
    words = strange if strange == "x" else ""
    assert made(stored, "aaaaaaaa") == Made([], words, words, "")
