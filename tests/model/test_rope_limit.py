"""Tests that no answer depends on the rows read beside it where a rope changes with the length of a row."""

import pytest
import torch

from afteredit.evaluate.inference.generation import generate
from afteredit.evaluate.inference.likelihood import score
from afteredit.model.lm import LM
from afteredit.store.errors import BadInput
from afteredit.tests.tiny.models import GATED, random_model, randomised

LONG = {"rope_type": "longrope", "short_factor": [1.0, 1.1, 1.3, 1.5], "long_factor": [2.0, 4.0, 8.0, 16.0],
        "original_max_position_embeddings": 32, "rope_theta": 10000.0}  # fmt: skip
ROPES = {"longrope": (LONG, 32), "dynamic": ({"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}, 128),
         "yarn": ({"rope_type": "yarn", "factor": 2.0, "rope_theta": 10000.0}, None)}  # fmt: skip


@pytest.fixture(params=list(ROPES))
def lm_and_limit(request, tokenizer, float64_throughout):
    rope, limit = ROPES[request.param]
    model = random_model("llama", len(tokenizer), pad_token_id=0, **GATED, rope_parameters=rope)
    return LM(randomised(model).double(), tokenizer), limit


def test_rows_up_to_the_limit_score_as_plain_passes_whatever_stands_beside_them(lm_and_limit, plain_nll):
    lm, limit = lm_and_limit
    longest = limit or 128
    assert (lm.rope_limit, lm.max_tokens) == (limit, longest)
    pairs = [(tuple(range(1, n)), tuple(range(3, 7))) for n in (5, 12, 25, longest - 3)]
    for pair, scores in zip(pairs, score(lm, pairs), strict=True):
        assert scores.nll == pytest.approx(float(plain_nll(lm, *pair)), abs=1e-11)
        assert scores.log_p == pytest.approx(score(lm, [pair])[0].log_p, abs=1e-11)


def test_an_answer_ends_where_the_rope_would_change(lm_and_limit):
    lm, limit = lm_and_limit
    row = tuple(range(1, (limit or 128) - 3))
    answers = generate(lm, [row, row[:9]], 12)
    assert list(map(len, answers)) == [5, 12]
    ids = list(row)
    for token in answers[0]:
        assert token == int(lm.model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
        ids.append(token)


def test_a_longer_row_is_refused_and_not_read_with_another_rope(tokenizer):
    model = random_model("llama", len(tokenizer), pad_token_id=0, **GATED, rope_parameters=LONG)
    with pytest.raises(BadInput, match="a row of 33 tokens; LlamaForCausalLM is read up to 32: a longer row changes"):
        score(LM(model, tokenizer), [((1,) * 33, (2,)), ((1, 2, 3), (4,))])
