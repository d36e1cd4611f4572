"""A generated text has to give an answer as a whole word or number, in every group of prompts."""

from __future__ import annotations

import pytest

from afteredit.edit.request import EditRequest
from afteredit.evaluate.metrics.editing_success import Response, success_prompts, success_scores


@pytest.mark.parametrize(("answer", "text", "given"), [
    ("Java", " Java, which", 1.0), ("Java", " JavaScript", 0.0), ("18", " 18 men", 1.0), ("18", " 1879", 0.0),
    ("巴黎", "巴黎是法国的首都", 1.0), ("十", "十八", 0.0),
])  # fmt: skip
def test_a_text_gives_a_whole_word_or_number(make_lm, answer, text, given):
    """The second portability prompt takes the answer under another name."""
    request = EditRequest("r", "Peru", "Of {} it is said:", answer, "Oslo", paraphrases=("It is said:",),
                          portability=("He said:", "She said:"), portability_answers=(answer, "Lima"),
                          portability_aliases=((), (answer,)), neighbourhood=("Of Chile it is said:",),
                          neighbourhood_answers=(answer,))  # fmt: skip
    said = {prompt: Response(1.0, None if prompt.target_true is None else 2.0, (), (), text)
            for prompt in success_prompts(request)}  # fmt: skip
    rows = success_scores(make_lm("gpt2"), said, said)
    scores = [(row["name"], row["score"]) for row in rows if row["name"].startswith("generated/")]
    assert sorted(scores) == [
        ("generated/efficacy", given), ("generated/neighbourhood", 1.0), ("generated/neighbourhood_paper", given),
        ("generated/paraphrase", given), ("generated/portability", given), ("generated/portability", given),
    ]  # fmt: skip
