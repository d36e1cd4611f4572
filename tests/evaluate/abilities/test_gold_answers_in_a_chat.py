"""Gold answers after a chat template that ends in a line feed, as ChatML does: the line feed is the template's."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch

from afteredit.evaluate.abilities.built_ability import BuiltAbility
from afteredit.launch.command_line import compose
from afteredit.model.lm import LM

ROOT = Path(__file__).resolve().parents[3]
TEMPLATE = ("{% for message in messages %}[{{ message.role }}]\n{{ message.content }}\n{% endfor %}"
            "{% if add_generation_prompt %}[assistant]\n{% endif %}")  # fmt: skip


@pytest.fixture
def lm(make_lm) -> LM:
    plain = make_lm("llama")
    plain.model.config.max_position_embeddings = 4096
    tokenizer = copy.deepcopy(plain.tokenizer)
    tokenizer.chat_template = TEMPLATE
    return LM(plain.model, tokenizer, prompt="chat")


def plain_nll(lm: LM, question: str, answer: str) -> float:
    """Nats, mean per token of the answer."""
    context, whole = (lm.tokenizer.encode(f"[user]\n{question}\n[assistant]\n{end}", add_special_tokens=False)
                      for end in ("", answer))  # fmt: skip
    assert whole[: len(context)] == context
    with torch.no_grad():
        log_p_TV = lm.model(torch.tensor([whole])).logits[0, len(context) - 1 : -1].log_softmax(-1)
    return -float(log_p_TV[range(len(whole) - len(context)), whole[len(context) :]].mean())


@pytest.mark.parametrize("name", ["sentiment", "open_qa"])
def test_the_line_feed_before_a_gold_answer_is_not_counted_to_it(name, lm, separately):
    """Sentiment's is one of its choices; open_qa's is scored in the pass that generates."""
    ability = compose([f"task=[{name}]", f"task.{name}.lm_eval.num_fewshot=0"]).tasks[name]
    rows = (ROOT / "data" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()[:2]
    wanted = []
    for row in map(json.loads, rows):
        if name == "sentiment":
            asked, gold = f"Review: {row['sentence']}\nSentiment:", ("negative", "positive")[int(row["label"])]
        else:
            asked, gold = f"Question: {row['question']}?\nAnswer:", row["answers"][0]
        wanted.append(plain_nll(lm, asked, gold))
    scores = BuiltAbility(name, ability, "mini", 2).measure(lm)
    assert [example.gold_nll for example in scores.examples] == pytest.approx(wanted, abs=1e-5)
    assert sum(separately) == (4 if name == "sentiment" else 0)
