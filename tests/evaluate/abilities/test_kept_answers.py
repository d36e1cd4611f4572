"""A measurement of the unedited model that is killed goes on after the answers it kept, and ends in the same scores."""

from __future__ import annotations

import itertools

import pytest

from afteredit.evaluate.abilities.built_ability import BuiltAbility
from afteredit.evaluate.abilities.unedited_scores import unedited_scores
from afteredit.evaluate.inference import batches
from afteredit.launch.command_line import compose
from afteredit.store.progress import kept_progress


class Killed(Exception):
    pass


def built(name: str) -> BuiltAbility:
    return BuiltAbility(name, compose([f"task=[{name}]"]).tasks[name], "mini", 5)


def counting(lm, dies_at: int | None = None) -> list[int]:
    """Counts the forward passes from here on; the one numbered `dies_at` raises Killed."""
    passes, forward, numbers = [], type(lm).forward, itertools.count()

    def call(*args):
        number = next(numbers)
        if number == dies_at:
            raise Killed
        passes.append(number)
        return forward(lm, *args)

    lm.forward = call
    return passes


@pytest.mark.parametrize("name", ["sentiment", "open_qa"])  # chosen by likelihood; generated
def test_a_killed_measurement_ends_in_the_same_scores(make_lm, tmp_path, monkeypatch, name):
    monkeypatch.setattr(batches, "CACHE_BUDGET", 400)  # a few batches
    monkeypatch.setattr(kept_progress, "SECONDS", 0.0)
    monkeypatch.setattr(kept_progress, "SHARE", 0.0)
    lm = make_lm("llama", start_token="<|endoftext|>")
    whole = built(name).measure(lm)
    n_whole = counting(lm)
    assert built(name).measure(lm) == whole
    n_passes, saved = len(n_whole), []
    for at in sorted({0, 1, n_passes // 3, n_passes // 2, n_passes - 1}):
        monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path / str(at)))
        counting(lm, dies_at=at)
        with pytest.raises(Killed):
            unedited_scores(built(name), lm)
        passes = counting(lm)
        assert unedited_scores(built(name), lm) == whole
        saved.append(n_passes - len(passes))
        assert not list((tmp_path / str(at)).rglob("*.progress"))
    assert saved[0] == 0 and saved == sorted(saved) and saved[-1] >= n_passes / 3
