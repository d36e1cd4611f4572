"""Whatever a model would have to read beyond its length is named before the first edit, with the row and its length."""

from __future__ import annotations

from dataclasses import replace

import pytest

from afteredit.edit.ingredients.context_prefixes import prefix_text
from afteredit.edit.methods.rome import Rome
from afteredit.edit.preflight import refuse_long_prefixes, refuse_uneditable, refuse_unlearnable
from afteredit.evaluate.metrics.editing_success import respond, success_scores
from afteredit.store.errors import BadInput

LONG = " ".join(["The sport that brought the old man who lived in the small house near the river to fame"] * 3)
BY_FIELD = {
    "its prompt": {"prompt": f"{LONG} by {{}}"},
    "paraphrase 2": {"paraphrases": ("China", LONG)},
    "neighbourhood prompt 1": {"neighbourhood": (LONG,), "neighbourhood_answers": ("",)},
    "portability prompt 3": {"portability": ("China", "Peru", LONG), "portability_answers": ("a", "", "b")},
    "generation prompt 2": {"generation_prompts": ("China", LONG)},
}
METHOD = Rome(layer=1)


def n_tokens(lm, text: str) -> int:
    return len(lm.tokenizer(text, add_special_tokens=False).input_ids) + len(lm.tokens.start_ids)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("field", BY_FIELD)
def test_a_text_that_is_too_long_is_named_with_its_row_and_length(make_lm, fact, family, field):
    lm = make_lm(family, positions=n_tokens(make_lm("gpt2"), LONG) - 1)
    bad = replace(fact, id="long", **BY_FIELD[field])
    with pytest.raises(BadInput, match=rf"^1 of 2 planned edits cannot be made: edit long: {field}.* has \d+ tokens, "
                                       rf"but the model reads {lm.max_tokens}; .*leave out"):  # fmt: skip
        refuse_uneditable(lm, METHOD, [fact, bad])


@pytest.mark.parametrize("start_token", [None, "<s>"])
def test_the_bound_is_what_measuring_reads(make_lm, fact, start_token):
    """Learned positions: a row that passes is measured; with one position fewer it is refused."""
    fact = replace(fact, target_new="boxing in the old town", paraphrases=(), neighbourhood=(),
                   neighbourhood_answers=())  # fmt: skip
    whole = n_tokens(make_lm("gpt2", start_token), f"{fact.question} boxing in the old town")
    lm = make_lm("gpt2", start_token, positions=whole + 3 - 1)
    other = replace(fact, id="short", prompt="{} is", target_new="the sport that brought fame to the old town")
    longer, answer = (len(lm.tokens.answer_ids(row.target_new, row.question)) for row in (other, fact))
    assert longer > answer + 3
    refuse_uneditable(lm, METHOD, [fact, other])
    now = respond(lm, [fact, other])  # both are continued for as long as the longer answer, up to the model's length
    assert success_scores(lm, now, now)
    with pytest.raises(BadInput, match=f"its prompt {fact.question!r}, with its answer, has {whole + 2} tokens"):
        refuse_uneditable(make_lm("gpt2", start_token, positions=whole + 1), METHOD, [fact])


def test_a_context_prefix_counts_with_the_prompt_and_its_answer(make_lm, fact):
    prefix = "Therefore the old man in the small house near the river"
    whole = n_tokens(make_lm("gpt2"), f"{prefix_text(prefix)}{fact.question} baseball")
    refuse_long_prefixes(make_lm("gpt2", positions=whole - 1), [fact], ("", prefix))
    lm = make_lm("gpt2", positions=whole - 2)
    refuse_long_prefixes(lm, [fact], ("",))
    with pytest.raises(BadInput, match=f"1 of 1 planned .* edit f1: .*prefix 'Therefore .*{whole - 1} tokens"):
        refuse_long_prefixes(lm, [fact], ("", prefix))


def test_facts_that_only_the_unedited_model_is_asked_are_named_as_such(make_lm, fact):
    lm = make_lm("gpt2", positions=n_tokens(make_lm("gpt2"), LONG) - 1)
    later = replace(fact, id="later", paraphrases=(LONG,))
    with pytest.raises(BadInput, match="^1 of 1 facts after the planned .* cannot be asked: edit later: paraphrase"):
        refuse_uneditable(lm, METHOD, [fact], [later])
    with pytest.raises(BadInput, match="^1 of 2 training rows cannot be learned from: edit later: paraphrase"):
        refuse_unlearnable(lm, [fact, later])
    assert refuse_unlearnable(lm, [fact]) == [fact]


def test_a_model_that_says_nothing_of_its_length_reads_everything(make_lm, fact, monkeypatch):
    lm = make_lm("llama")
    monkeypatch.setattr("afteredit.model.lm.LENGTH_KEYS", ("none",))
    assert lm.max_tokens is None
    refuse_uneditable(lm, METHOD, [replace(fact, paraphrases=(LONG * 20,))])
