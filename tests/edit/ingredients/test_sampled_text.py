"""Tests the text that a model writes for its second moment."""

import json

import pytest

from afteredit.edit.ingredients import sampled_text
from afteredit.launch.command_line import compose
from afteredit.store.errors import BadInput
from afteredit.store.rows.row_files import EMBEDDED
from afteredit.store.user_cache import cache_folder


@pytest.mark.real
def test_the_sampled_text_that_is_shipped_is_what_smollm2_asks_for(monkeypatch, tmp_path):
    model = compose(["model=smollm2"]).model
    lm = model.load("cpu", "float32")
    models = json.loads((EMBEDDED / "sampled_text" / "models.json").read_text("utf-8"))
    assert models == {lm.fingerprint: {"source": model.source, "start_token": model.start_token, "prompt": "plain",
                                       "dtype": "float32"}}  # fmt: skip
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path))
    monkeypatch.setattr(sampled_text, "continue_rows", None)  # fails if anything is sampled
    assert len(list(sampled_text.sequences(lm, "sampled", 10 * lm.widths(0)[1]))) == 120
    assert not list(cache_folder().iterdir())


def test_a_hub_text_that_cannot_be_had_is_refused_with_what_can_be_named_in_its_place(make_lm, monkeypatch):
    import datasets

    def unreachable(*_given, **_options):
        raise OSError("no route")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(BadInput, match=r"'wikitext' could not .*route.*method.second_moment_text=sampled, or a text"):
        list(sampled_text.sequences(make_lm("gpt2"), "hub:wikitext:wikitext-103-raw-v1", 100))


def test_a_hub_text_is_read_at_the_revision_that_is_named(make_lm, monkeypatch):
    import datasets

    asked = []

    def load(*given, revision, **_options):
        asked.append((*given, revision))
        return [{"text": "One old town lies by the sea. " * 9}] * 99

    monkeypatch.setattr(datasets, "load_dataset", load)
    for text in ("hub:wikitext:raw@1a2b", "hub:wikitext:raw"):
        assert len(list(sampled_text.sequences(make_lm("gpt2"), text, 200))) == 2
        assert sampled_text.identity(text) == text
    assert asked == [("wikitext", "raw", "1a2b"), ("wikitext", "raw", None)]
