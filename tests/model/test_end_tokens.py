"""Where a text or a turn ends: at every id at which transformers' `generate` stops; special tokens are no text."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
from lm_eval.api.instance import Instance
from tokenizers import AddedToken, normalizers

from afteredit.evaluate.abilities import lm_eval_model
from afteredit.evaluate.abilities.lm_eval_model import LmEvalModel
from afteredit.evaluate.metrics import editing_success
from afteredit.evaluate.metrics.editing_success import respond, success_scores
from afteredit.model.lm import LM
from afteredit.model.loading.special_tokens import end_ids
from afteredit.store.errors import BadInput

TURN_ENDS, TURN_BEGINS = "<|end|>", "<|assistant|>"


@pytest.fixture
def chatty(tokenizer, make_lm) -> LM:
    """Ends its turn as Phi-3 does: with a special token that only the generation config names."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_tokens([AddedToken(token, special=True) for token in (TURN_ENDS, TURN_BEGINS)])
    model = make_lm("gpt2").model
    model.resize_token_embeddings(len(tokenizer))
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(TURN_ENDS)]
    return LM(model, tokenizer)


def saying(text: str, tokenizer):
    """Stands in for `score_and_generate`: the model says `text` after every context, until it is complete."""
    said = tokenizer(text).input_ids

    def answer(_lm, continuations, n_tokens, is_complete=lambda _ids: False, *_):
        ends = (n for n in range(1, len(said) + 1) if n == n_tokens or is_complete(said[:n]))
        return {}, dict.fromkeys(continuations, said[: next(ends, len(said))])

    return answer


def test_all_ends_are_known_and_in_the_models_name(chatty, tokenizer):
    ends = {tokenizer.eos_token_id, chatty.tokenizer.convert_tokens_to_ids(TURN_ENDS)}
    assert chatty.tokens.end_ids == ends
    assert chatty.tokens.special_ids >= {*ends, chatty.tokenizer.convert_tokens_to_ids(TURN_BEGINS)}
    chatty.model.generation_config.eos_token_id = None
    plain = LM(chatty.model, chatty.tokenizer)
    assert plain.tokens.end_ids == {tokenizer.eos_token_id} and plain.fingerprint != chatty.fingerprint


def test_an_answer_to_a_task_ends_at_every_end(chatty, monkeypatch):
    model = LmEvalModel(chatty)
    asked = [Instance("generate_until", {}, ("Who is it?", {"until": ["\n"], "max_gen_toks": 20}), 0)]
    said = saying(f" Tom{TURN_ENDS}{TURN_BEGINS} is", chatty.tokenizer)
    monkeypatch.setattr(lm_eval_model, "score_and_generate", said)
    assert model.generate_until(asked) == [" Tom"] and not model.ran_out


def test_without_an_end_token_an_answer_ends_at_the_tasks_own_stops(tokenizer, make_lm):
    bare, model = copy.deepcopy(tokenizer), make_lm("gpt2").model
    bare.eos_token = model.generation_config.eos_token_id = None
    ids = bare("Who is it?", return_tensors="pt").input_ids
    new = model.generate(ids, max_new_tokens=20, do_sample=False, pad_token_id=0)[0, ids.shape[1] :]
    text = bare.decode(new)
    lm = LM(model, bare)
    assert len(new) == 20 and lm.tokens.end_ids == frozenset()
    for stop, answer in ((text[9:12], text[:9]), ("no such text", text)):
        assert text.find(stop) in (9, -1)
        asked = Instance("generate_until", {}, ("Who is it?", {"until": [stop], "max_gen_toks": 20}), 0)
        assert LmEvalModel(lm).generate_until([asked]) == [answer]


def generated(lm: LM, fact, text: str, monkeypatch) -> float:
    """Returns generated/efficacy of a model that says `text`."""

    def answer(lm, continuations, n_tokens):
        scores, _ = plain(lm, continuations, n_tokens)
        return scores, dict.fromkeys(continuations, lm.tokenizer(text).input_ids)

    plain = editing_success.score_and_generate
    with monkeypatch.context() as patch:
        patch.setattr(editing_success, "score_and_generate", answer)
        responses = respond(lm, [fact])
    return {row["name"]: row["score"] for row in success_scores(lm, responses, responses)}["generated/efficacy"]


def test_what_follows_a_turn_is_no_part_of_an_answer(chatty, fact, monkeypatch):
    fact = replace(fact, target_new="tennis")
    assert generated(chatty, fact, f" tennis{TURN_ENDS}{TURN_BEGINS}x", monkeypatch) == 1
    assert generated(chatty, fact, " tennisx", monkeypatch) == 0


def test_padding_that_is_a_plain_word_is_a_word(tokenizer, make_lm, fact, monkeypatch):
    """`"pad_token_id": 0` is "!" in GPT-2's vocabulary."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_special_tokens({"pad_token": "!"})
    lm = LM(make_lm("gpt2").model, tokenizer)
    assert "!" in tokenizer.all_special_tokens and tokenizer.pad_token_id not in lm.tokens.special_ids
    assert generated(lm, replace(fact, target_new="Yahoo!"), " Yahoo!", monkeypatch) == 1
    assert generated(lm, replace(fact, target_new="Yahoo!"), " Yahoo", monkeypatch) == 0


def test_an_answer_counts_as_the_tokenizer_writes_it(tokenizer, make_lm, fact, monkeypatch):
    """GPT-1's knows no capitals and no accents."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    lm = LM(make_lm("gpt2").model, tokenizer)
    assert generated(lm, replace(fact, target_new="Zürich"), " Zürich", monkeypatch) == 1
    assert generated(lm, replace(fact, target_new="Zürich"), " Zug", monkeypatch) == 0


@pytest.mark.parametrize("wrong", ["<|endoftext|>", {"a": 1}, [0, "</s>"], [[0]], 0.5])
def test_an_end_that_is_no_id_is_refused(wrong):
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=wrong))
    with pytest.raises(BadInput, match="eos_token_id is .* it must be a token's id"):
        end_ids(model)
